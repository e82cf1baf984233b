"""Plugin code that opens files without `self.files` is refused and recorded; the host does the same things freely."""

import os
import re

import pytest

OPENS = {
    "open": ("return open({target!r}).read()", "open"),
    "open for writing": ("open({target!r}, 'w')", "open"),
    "io.open": ("import io\nio.open({target!r})", "open"),
    "io.open_code": ("import io\nio.open_code({target!r})", "open"),
    "io.FileIO": ("import io\nio.FileIO({target!r})", "open"),
    "os.open": ("os.open({target!r}, os.O_RDONLY)", "open"),
    "os.open of a path handle": ("os.open({target!r}, os.O_PATH)", "open"),
    "bytes path": ("open({target!r}.encode())", "open"),
    "codecs.open": ("import codecs\ncodecs.open({target!r})", "open"),
    "pathlib read": ("import pathlib\npathlib.Path({target!r}).read_text()", "open"),
    "pathlib touch": ("import pathlib\npathlib.Path({target!r}).touch()", "os.utime"),
    "fileinput": ("import fileinput\nlist(fileinput.input({target!r}))", "open"),
    "linecache of a file that is no source": (
        "import linecache\nlinecache.getline({target!r}, 1)\nopen({target!r})",
        "open",
    ),
    "exec'd code": ("exec('open(' + repr({target!r}) + ')')", "open"),
    "eval'd with other builtins": ("import builtins\neval('o(t)', {{'o': builtins.open, 't': {target!r}}})", "open"),
    "a file name that lies": (
        "exec(compile('open(' + repr({target!r}) + ')', '<frozen importlib._bootstrap_external>', 'exec'))",
        "open",
    ),
    "listdir": ("os.listdir(os.path.dirname({target!r}))", "os.listdir"),
    "scandir": ("list(os.scandir(os.path.dirname({target!r})))", "os.scandir"),
    "remove": ("os.remove({target!r})", "os.remove"),
    "unlink": ("os.unlink({target!r})", "os.remove"),
    "rename": ("os.rename({target!r}, '/tmp/x')", "os.rename"),
    "replace": ("os.replace({target!r}, '/tmp/x')", "os.rename"),
    "mkdir": ("os.mkdir({target!r} + 'd')", "os.mkdir"),
    "makedirs": ("os.makedirs({target!r} + 'd')", "os.mkdir"),
    "rmdir": ("os.rmdir({target!r})", "os.rmdir"),
    "chmod": ("os.chmod({target!r}, 0o777)", "os.chmod"),
    "chown": ("os.chown({target!r}, -1, -1)", "os.chown"),
    "utime": ("os.utime({target!r})", "os.utime"),
    "symlink": ("os.symlink({target!r}, '/tmp/x')", "os.symlink"),
    "link": ("os.link({target!r}, '/tmp/x')", "os.link"),
    "truncate": ("os.truncate({target!r}, 0)", "os.truncate"),
    "setxattr": ("os.setxattr({target!r}, 'user.x', b'')", "os.setxattr"),
    "chdir": ("os.chdir(os.path.dirname({target!r}))", "os.chdir"),
    "shutil.copyfile": ("import shutil\nshutil.copyfile({target!r}, '/tmp/x')", "shutil.copyfile"),
    "shutil.rmtree": ("import shutil\nshutil.rmtree(os.path.dirname({target!r}))", "shutil.rmtree"),
    "tempfile": ("import tempfile\ntempfile.mkstemp(dir='/tmp')", "tempfile.mkstemp"),
    "glob": ("import glob\nglob.glob({target!r} + '*')", "glob.glob"),
    "sqlite3": ("import sqlite3\nsqlite3.connect({target!r})", "sqlite3.connect"),
}


@pytest.mark.parametrize("name", OPENS)
async def test_opening_a_file_is_refused_and_recorded(rogue, tmp_path, name):
    """However plugin code opens a file, it is refused in advance, with its line in the record."""
    target = tmp_path / "secret.txt"
    target.write_text("secret")
    code, action = OPENS[name]
    for function in re.findall(r"\bos\.(\w+)", code):
        if not hasattr(os, function):
            pytest.skip(f"this platform has no os.{function}")
    event = await rogue.refused(code.format(target=str(target)), "files", action)
    if action != "tempfile.mkstemp":
        assert str(tmp_path) in event.target
    assert target.read_text() == "secret"
    assert set(os.listdir(tmp_path)) == {"rogue", "secret.txt"}


async def test_the_record_has_the_plugins_own_source_line(tmp_path):
    """The operator sees file, line and text of the plugin's code, even if a library made the call."""
    from nyx_stream import PluginHost
    from nyx_stream.errors import TripwireDenied
    from tests.plugin_fixtures import write_plugin

    events = []
    folder = write_plugin(
        tmp_path / "p",
        """
        import pathlib
        class Main(Plugin):
            @export
            async def f(self):
                return pathlib.Path("/etc/hostname").read_text()  # here
        """,
    )
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        handle = await host.load(folder)
        with pytest.raises(TripwireDenied, match=r"\(main\.py:7: return pathlib.*read_text\(\)  # here\) denied"):
            await handle.call("f")
    assert [event.target for event in events if event.layer == "tripwire"] == [
        '/etc/hostname (main.py:7: return pathlib.Path("/etc/hostname").read_text()  # here)'
    ]


async def test_the_host_opens_files_while_a_plugin_is_loaded(rogue, tmp_path):
    """The host's own code isn't attributed to the plugin, not even between the steps of a plugin."""
    (tmp_path / "own.txt").write_text("own")
    assert await rogue.run("return 1") == "1"
    assert (tmp_path / "own.txt").read_text() == "own"
    assert not rogue.denied


async def test_hostile_text_in_a_path_is_escaped(rogue):
    """Control characters of a path reach neither error nor log unescaped."""
    event = await rogue.refused("open('/tmp/\\x1b[2Jx\\n')", "files", "open")
    assert event.target.isprintable()


async def test_a_path_object_with_its_own_fspath_is_refused(rogue):
    """A path whose `__fspath__` returns different texts opens nothing."""
    code = """
class Path:
    def __init__(self): self.said = 0
    def __fspath__(self):
        self.said += 1
        return os.__file__ if self.said == 1 else "/etc/passwd"
return open(Path()).read()"""
    event = await rogue.refused(code, "files", "open")
    assert "/etc/passwd" in event.target or os.__file__ in event.target
