"""`nyx approve`: comparing a plugin with a lock file, and accepting it."""

import json


def test_a_plugin_is_accepted_and_shown(nyx, case, tmp_path):
    """`--show` changes nothing. Its exit code is 1 while an update is pending, and 0 once it is accepted."""
    lock = tmp_path / "nyx.lock"
    done = nyx("approve", case.plugin, "--lock", lock, "--show")
    assert (done.code, lock.exists()) == (0, False)
    assert nyx("approve", case.plugin, "--lock", lock).out.startswith("accepted: weather 1.2.0, blake2b:")
    text = (case.plugin / "plugin.toml").read_text()
    case.write("plugin.toml", text.replace("1.2.0", "1.3.0").replace('"LANG"', '"LANG", "HOME"'))
    before = lock.read_bytes()
    done = nyx("approve", case.plugin, "--lock", lock, "--show")
    assert done.code == 1
    assert "  wants more: env HOME\n" in done.out
    assert "  pending: update waiting: version 1.3.0 requests more than 1.2.0: env HOME\n" in done.out
    assert lock.read_bytes() == before
    shown = json.loads(nyx("approve", case.plugin, "--lock", lock, "--json").out)
    assert (shown["accepted"], shown["version"], shown["before"]["version"]) == (True, "1.3.0", "1.2.0")
    assert shown["more"] == [{"kind": "env", "rule": "HOME"}]
    assert nyx("approve", case.plugin, "--lock", lock, "--show").code == 0


def test_removed_approvals_are_listed(nyx, case, tmp_path):
    """Approvals apply only to the content that they were given for."""
    lock = tmp_path / "nyx.lock"
    nyx("approve", case.plugin, "--lock", lock)
    recorded = json.loads(lock.read_text())
    recorded["plugins"]["weather"]["approvals"] = [
        {"kind": "connect", "rule": "a.example", "verdict": "always", "until": None}
    ]
    lock.write_text(json.dumps(recorded))
    case.write("more.py", "x = 1\n")
    out = nyx("approve", case.plugin, "--lock", lock).out
    assert "  approval removed, given for other content: connect a.example\n" in out
    assert json.loads(lock.read_text())["plugins"]["weather"]["approvals"] == []


def test_a_broken_lock_file_is_a_clear_error(nyx, case, tmp_path):
    """It has the exit code of a file with errors."""
    lock = tmp_path / "nyx.lock"
    lock.write_text("{")
    lock.chmod(0o600)
    done = nyx("approve", case.plugin, "--lock", lock)
    assert done.code == 3
    assert "nyx.lock: broken" in done.err
