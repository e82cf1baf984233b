"""`nyx check`: compares a manifest with the code, without importing it."""

import json

import pytest


def findings(nyx, case):
    """Returns (exit code, [(severity, location, message)])."""
    done = nyx("check", case.plugin, "--json")
    return done.code, [(f["severity"], f["at"], f["message"]) for f in json.loads(done.out)["findings"]]


def errors(nyx, case):
    """Returns the messages of the errors."""
    return [message for severity, _, message in findings(nyx, case)[1] if severity == "error"]


def test_a_plugin_without_findings_is_ok(nyx, case):
    """The exit code is 0, and the output says ok."""
    case.write("plugin.toml", 'id = "w"\nversion = "1"\nentry = "w:W"\n')
    case.write(
        "w.py",
        """
        from nyx_stream import Plugin, export
        class W(Plugin):
            @export
            async def hello(self) -> str:
                return "hello"
        """,
    )
    (case.plugin / "weather.py").unlink()
    done = nyx("check", case.plugin)
    assert done.code == 0
    assert done.out == "w 1: ok (1 file read)\n"


def test_errors_and_warnings_are_counted(nyx, case):
    """The last line has both counts."""
    case.write("more.py", "import os\nos.system('ls')\nx = 'https://other.example/'\n")
    assert nyx("check", case.plugin).out.splitlines()[-1] == "weather 1.2.0: 1 error, 1 warning (2 files read)"


def test_the_code_is_not_imported(nyx, case):
    """A module that creates a file when it is imported creates none."""
    mark = case.plugin / "mark"
    case.write("weather.py", f"open({str(mark)!r}, 'w')\nclass Weather: pass\n")
    nyx("check", case.plugin)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Other: pass", "entry: the class Weather is not defined"),
        ("class Weather:\n    pass", "entry: Weather is not a subclass of Plugin"),
        ("class Weather(:\n", "syntax error: invalid syntax"),
    ],
)
def test_an_entry_point_that_would_not_load_is_an_error(nyx, case, code, message):
    """The class must be defined, in a file without syntax errors, and have a base class."""
    case.write("weather.py", code)
    assert message in errors(nyx, case)


def test_a_missing_module_is_an_error(nyx, case):
    """The entry point names a module that is not in the folder."""
    (case.plugin / "weather.py").unlink()
    assert "entry: neither weather.py nor weather/__init__.py exists" in errors(nyx, case)


def test_permissions_must_match_use(nyx, case):
    """A capability that is used must be requested; a permission that is never used is a warning."""
    case.write("plugin.toml", 'id = "w"\nversion = "1"\nentry = "weather:Weather"\n[permissions]\nenv = ["TZ"]\n')
    case.write(
        "weather.py",
        """
        from nyx_stream import Plugin, export
        class Weather(Plugin):
            @export
            async def f(self):
                await self.http.get("https://a.example/")
                await self.files.read_text("x")
                await self.connect("a.example", 80)
        """,
    )
    code, found = findings(nyx, case)
    assert code == 1
    assert ("error", "weather.py:6", "self.http is used, but the manifest does not request connect or request") in found
    assert ("error", "weather.py:7", "self.files is used, but the manifest does not request read or write") in found
    assert ("error", "weather.py:8", "self.connect is used, but the manifest does not request connect") in found
    assert ("warning", "plugin.toml", "env is requested, but self.env is never used") in found


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        ('self.http.get("https://api.met.no/v1/x")', True),
        ('self.http.get(f"https://api.met.no/v1/{1}")', True),
        ('self.http.request("get", "https://api.met.no/x")', True),
        ('self.http.post("https://api.met.no/v1/x")', False),
        ('self.http.stream("GET", "https://other.example/")', False),
        ('self.http.get(f"https://other.example/{1}")', False),
        ('self.http.get("https://api.met.no@other.example/")', False),
    ],
)
def test_literal_urls_are_checked_against_the_manifest(nyx, case, call, allowed):
    """A request with a literal URL must be one that some policy could allow."""
    case.write("weather.py", f"class Weather(Plugin):\n    async def f(self):\n        await {call}\n")
    about_urls = [message for message in errors(nyx, case) if "http" in message and "self.http" not in message]
    assert bool(about_urls) != allowed


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("open('/etc/passwd')", "open"),
        ("import subprocess as s; s.run(['ls'])", "subprocess.run"),
        ("from os import system; system('ls')", "os.system"),
        ("import socket; socket.create_connection(('a', 1))", "socket.create_connection"),
        ("import ctypes; ctypes.CDLL(None)", "ctypes.CDLL"),
        ("import httpx; httpx.AsyncClient()", "httpx.AsyncClient"),
        ("import urllib.request; urllib.request.urlopen('x')", "urllib.request.urlopen"),
        ("from pathlib import Path; Path('x').read_text()", "pathlib.Path"),
        ("import threading; threading.Thread(target=print)", "threading.Thread"),
    ],
)
def test_bypassing_the_capabilities_is_an_error(nyx, case, line, name):
    """A call that the tripwire would refuse is found under any imported name."""
    case.write("weather.py", line)
    assert any(message.startswith(f"{name} bypasses the sandbox") for message in errors(nyx, case))


def test_docstrings_and_tests_are_not_uses(nyx, case):
    """A URL in a docstring is not a request, and the plugin's own tests are not checked."""
    case.write("weather.py", '"""See https://nowhere.example/."""\nclass Weather(Plugin):\n    pass\n')
    case.write("test_weather.py", "open('x')")
    assert not errors(nyx, case)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = " + "+".join(["1"] * 100_000), "nested too deeply"),
        ("x = '\0'", "null bytes"),
        ("#" * (4 * 2**20 + 1), "larger than"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_an_error(nyx, case, code, message):
    """No source file makes the check itself fail."""
    case.write("odd.py", code)
    assert any(message in found for found in errors(nyx, case))


def test_a_capability_used_in_another_module_counts_as_used(nyx, case):
    """`plugin.http` in a second file is a use of the permission."""
    case.write("more.py", "async def f(plugin):\n    await plugin.http.get('https://api.met.no/v1/x')\n")
    assert not [found for found in findings(nyx, case)[1] if "self.http is never used" in found[2]]


def test_an_installed_plugin_is_checked_by_its_id(nyx, tmp_path, monkeypatch):
    """A distribution with the entry point is found and read without importing it."""
    package, metadata = tmp_path / "hello_plugin", tmp_path / "hello_plugin-1.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    (package / "main.py").write_text(
        "class Hello(Plugin):\n    @export\n    async def hello(self): ...\n", encoding="utf-8"
    )
    entry = "hello_plugin.main:Hello"
    (package / "plugin.toml").write_text(f'id = "hello"\nversion = "1"\nentry = "{entry}"\n', encoding="utf-8")
    (metadata / "METADATA").write_text("Name: hello-plugin\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[nyx.plugins]\nhello = {entry}\n", encoding="utf-8")
    (metadata / "RECORD").write_text("hello_plugin/plugin.toml,,\nhello_plugin/main.py,,\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert nyx("check", "hello").out == "hello 1: ok (2 files read)\n"


def test_a_missing_plugin_has_its_own_exit_code(nyx, tmp_path):
    """The exit code is 4 for a missing folder or plugin, and 3 for a folder without a manifest."""
    assert nyx("check", tmp_path / "nowhere").code == 4
    assert nyx("check", "no-such-plugin").code == 4
    assert nyx("check", tmp_path).code == 3


def test_optional_permissions_and_self_request_belong_together(nyx, case):
    """One without the other is a warning."""
    head = 'id = "w"\nversion = "1"\nentry = "w:W"\n[permissions]\nconnect = [{rule = "a.example", optional = true}]\n'
    code = """
        from nyx_stream import Plugin, export
        class W(Plugin):
            @export
            async def hello(self) -> None:
                await self.connect("a.example", 1)
        """
    (case.plugin / "weather.py").unlink()
    case.write("plugin.toml", head)
    case.write("w.py", code)
    assert [(severity, at) for severity, at, _ in findings(nyx, case)[1]] == [("warning", "plugin.toml")]
    asking = code.replace(
        "await self.connect", 'await self.request("connect", "a.example")\n                await self.connect'
    )
    case.write("w.py", asking)
    assert findings(nyx, case)[1] == []
    case.write("plugin.toml", head.replace(", optional = true", ""))
    assert [(severity, at) for severity, at, _ in findings(nyx, case)[1]] == [("warning", "w.py:6")]
