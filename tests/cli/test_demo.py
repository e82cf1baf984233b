"""`nyx demo` and `nyx new`."""

import re
import subprocess
import sys

import pytest

from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.demo import live
from nyx_stream.isolation.remote.host.handshake import SealRefused
from tests.conformance.machine import missing


def test_the_demo_shows_both_outcomes_of_each_kind(nyx):
    """It shows allowed and denied requests, reads and writes, a bypass, and the audit trail."""
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


def test_the_live_demo_shows_the_same_steps_at_every_level(nyx):
    """The output is the same inline and in a sealed process; the log verifies and a changed copy does not."""
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    done = nyx("demo", "--live")
    assert (done.code, done.err) == (0, "")
    assert "NOT WHAT" not in done.out
    _, inline, process = re.split(r"^Level .*\n", done.out, flags=re.MULTILINE)
    process, verified, found = process.split("$ nyx audit verify ")
    assert "how the process was sealed" in process
    process = re.sub(r"\n.* how the process was sealed.*\n", "", process)
    plain = [re.sub(r"127\.0\.0\.1:\d+|nyx-demo-\w+", "", text) for text in (inline, process)]
    assert plain[0].replace(" of level inline", "") == plain[1].replace(" of level process", "")
    steps, trail = inline.split("The audit trail of")
    for text in (
        "\n  denied: courier: http GET ",
        "\n  allowed: {'city': 'oslo'",
        "\n  denied: http.get('/v1/lisbon'): outside the narrowed grant",
        "\n  the plugin reads: 07:00 -3 snow\n  the plugin gets: Revoked(reason='revoked: incident 42')",
        "denied: revoked: incident 42",
    ):
        assert text in steps
    assert re.search(r"revoke +http +allowed +host +incident 42", trail)
    assert "unbroken: " in verified
    (line,) = re.findall(r"one byte of line (\d+) is changed", verified)
    assert f"copy.jsonl:{line}: record {line} was changed" in found


def test_the_live_demo_fails_if_a_step_is_not_what_it_claims(nyx, monkeypatch):
    """The exit code is 1; here, the copy is not changed."""
    monkeypatch.setattr(live.LiveDemo, "tamper", lambda demo: live.TamperedCopy(demo.log, 1, "a", "a"))
    monkeypatch.setattr("nyx_stream.cli.demo.LEVELS", ("inline",))
    done = nyx("demo", "--live")
    assert done.code == ExitCode.DENIED
    assert "THIS IS NOT WHAT THE STEP CLAIMS" in done.out


def test_the_live_demo_continues_where_no_process_can_be_sealed(nyx, monkeypatch):
    """The exit code is 9, the missing level is reported, and the rest is shown."""

    def refuse(*_):
        raise SealRefused("no landlock here")

    monkeypatch.setattr("nyx_stream.isolation.remote.host.handshake.judge", refuse)
    done = nyx("demo", "--live")
    assert done.code == ExitCode.SANDBOX
    assert re.search(r"not shown: courier: .*no landlock here", done.out) or missing()
    assert "unbroken: " in done.out


def test_a_new_plugin_passes_its_check_and_its_test(nyx, tmp_path):
    """`nyx check` has no findings, `nyx run` runs it, and its own test passes."""
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


def test_a_folder_that_is_not_empty_is_not_changed(nyx, tmp_path):
    """The exit code is 7, and the folder stays as it was."""
    (tmp_path / "mine").write_text("mine")
    done = nyx("new", tmp_path)
    assert done.code == 7
    assert "not empty" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["123", "---", "é"])
def test_a_name_that_gives_no_module_name_is_refused(nyx, tmp_path, name):
    """The exit code is 2, and nothing is created."""
    assert nyx("new", tmp_path / name).code == 2
    assert not list(tmp_path.iterdir())
