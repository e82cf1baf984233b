"""`nyx demo` and `nyx new`: what a newcomer sees first."""

import subprocess
import sys

import pytest


def test_the_demo_shows_both_outcomes_of_each_kind(nyx):
    """Allowed and denied, for requests, reading and writing, and the way round; then the trail of all of it."""
    done = nyx("demo")
    assert (done.code, done.err) == (0, "")
    calls, trail = done.out.split("The audit trail:")
    assert calls.count("allowed: ") == 3
    assert calls.count(" denied: ") == 4
    assert 'allowed: {"city": "oslo", "degrees": -4, "sky": "snow"}' in calls
    assert "never be seen" not in done.out
    assert trail.count(" denied ") == 4
    for layer in ("guard", "tripwire", "host"):
        assert f" {layer} " in trail


def test_a_new_plugin_passes_its_check_and_its_test(nyx, tmp_path):
    """What `nyx new` writes is sound: `nyx check` has nothing to say, `nyx run` runs it, its own test passes."""
    folder = tmp_path / "my greeter"
    assert nyx("new", folder).code == 0
    assert nyx("check", folder).out == "my-greeter 0.1.0: ok (1 file read)\n"
    call = ("greet", "name=Ada", "--policy", folder / "policy.toml", "--data-dir", tmp_path / "data")
    assert nyx("run", folder, *call).out == '"Hello Ada! This is greeting 1."\n'
    test = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert test.returncode == 0, test.stdout
    assert "2 passed" in test.stdout


def test_a_folder_with_something_in_it_is_not_touched(nyx, tmp_path):
    """Exit code 7, and the file is as it was."""
    (tmp_path / "mine").write_text("mine")
    done = nyx("new", tmp_path)
    assert done.code == 7
    assert "not empty" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["123", "---", "é"])
def test_a_name_that_is_no_module_is_refused(nyx, tmp_path, name):
    """Exit code 2, and nothing is made."""
    assert nyx("new", tmp_path / name).code == 2
    assert not list(tmp_path.iterdir())
