"""Importing under the tripwire works, and the import machinery can't be used to read or write other files."""

import asyncio
import importlib
import subprocess
import sys
from textwrap import dedent

import pytest

from nyx_stream import PluginHost
from tests.plugin_fixtures import write_plugin

# Of the standard library, rarely imported before, with and without native parts.
MODULES = ["wave", "zipapp", "this_is_not_a_module", "xmlrpc.client", "cmd", "mailbox", "_uuid", "sqlite3"]


async def test_importing_the_library_and_installed_packages_works(rogue, monkeypatch):
    """Modules that have not been imported yet are found, read and executed; a missing one is an ordinary error."""
    for name in MODULES:
        if name not in sys.builtin_module_names:
            monkeypatch.delitem(sys.modules, name, raising=False)
        found = importlib.util.find_spec(name) is not None if "not" not in name else False
        code = f"try: import {name}\nexcept ModuleNotFoundError: return 'missing'\nreturn 'imported'"
        assert await rogue.run(code) == repr("imported" if found else "missing")
    assert not rogue.denied


async def test_a_library_that_needs_ctypes_can_be_imported(rogue, monkeypatch):
    """An installed module may open a native library while it is imported."""
    for name in ("ctypes", "uuid", "ctypes.util"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert await rogue.run("import ctypes, uuid, ctypes.util\nreturn uuid.UUID(int=1).int") == "1"
    assert not rogue.denied


async def test_tracebacks_logs_and_warnings_show_source_lines(rogue, caplog):
    """Plugin code may read source lines for a traceback, which isn't recorded as an attack."""
    code = """
import traceback, warnings, linecache
linecache.clearcache()
try: 1 / 0
except ZeroDivisionError:
    self.log.exception("oh")
    text = traceback.format_exc()
def deep():
    return "".join(traceback.format_stack())
return 'exec(source' in deep() or 'await names["attack"]' in deep()"""
    assert await rogue.run(code) == "True"
    assert "ZeroDivisionError" in caplog.text
    assert not rogue.denied


async def test_a_syntax_error_is_not_an_attack_and_reads_no_file(rogue, tmp_path):
    """The compiler opens a file to show the line of a syntax error; for text without a file that isn't recorded."""
    code = "import ast\ntry: ast.literal_eval('f(')\nexcept SyntaxError: return 'caught'"
    assert await rogue.run(code) == "'caught'"
    assert not rogue.denied
    target = tmp_path / "secret.txt"
    target.write_text("secret\n")
    code = f"try: compile('return 1', {str(target)!r}, 'exec')\nexcept SyntaxError as error: return error.text"
    assert await rogue.run(code) == "None"
    assert [event.layer for event in rogue.denied] == ["tripwire"]


async def test_library_data_can_be_read_by_the_library(rogue):
    """An installed package may read its own files, which the plugin could import anyway."""
    assert await rogue.run("import importlib.metadata\nreturn importlib.metadata.version('pydantic')[:1]") == "'2'"
    assert not rogue.denied


LOADER_ATTACKS = {
    "get_data": "import importlib.machinery as m\nreturn m.SourceFileLoader('x', {t!r}).get_data({t!r})",
    "own get_data": "return __loader__.get_data({t!r})",
    "exec_module": (
        "import importlib.util as u\nspec = u.spec_from_file_location('x', {t!r})\n"
        "spec.loader.exec_module(u.module_from_spec(spec))"
    ),
    "a finder that points elsewhere": (
        "import importlib.machinery as m, importlib.util as u\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'planted_x':\n"
        "            return u.spec_from_file_location(name, {t!r}, loader=m.SourceFileLoader(name, {t!r}))\n"
        "finder = Finder()\n"
        "sys.meta_path.insert(0, finder)\n"
        "try: import planted_x\n"
        "finally: sys.meta_path.remove(finder)"
    ),
    "a planted import path": (
        "folder = os.path.dirname({t!r})\n"
        "sys.path.insert(0, folder)\n"
        "try: import secret_module\n"
        "finally: sys.path.remove(folder)"
    ),
    "write_atomic": "import importlib._bootstrap_external as b\nb._write_atomic({t!r}, b'evil')",
    "runpy": "import runpy\nrunpy.run_path({t!r})",
    "zipimport": "import zipimport\nzipimport.zipimporter({t!r})",
    "linecache of a source file": (
        "import linecache\nlinecache.clearcache()\nif not linecache.getline({t!r}, 1): open({t!r})"
    ),
    "tokenize": "import tokenize\ntokenize.open({t!r})",
}


@pytest.mark.parametrize("name", LOADER_ATTACKS)
async def test_import_machinery_reads_nothing_else(rogue, tmp_path, name):
    """importlib doesn't read or write files outside the import path, however the plugin sets it up."""
    target = tmp_path / "elsewhere" / "secret_module.py"
    target.parent.mkdir()
    target.write_text("SECRET = 1\n")
    with pytest.raises(Exception, match=r"denied|No module named|importing|open Zip"):
        await rogue.run(LOADER_ATTACKS[name].format(t=str(target)))
    assert rogue.denied
    assert {event.layer for event in rogue.denied} == {"tripwire"}
    assert target.read_text() == "SECRET = 1\n"


async def test_bytecode_is_not_poisoned(rogue):
    """Neither an import in plugin code nor code that imitates one writes bytecode."""
    import wave

    cached = importlib.util.cache_from_source(wave.__file__)
    code = f"import importlib._bootstrap_external as b\nb._write_atomic({cached!r}, b'evil')"
    event = await rogue.refused(code, "files", "open")
    assert cached in event.target


async def test_the_tripwire_can_be_switched_off_for_a_host(tmp_path, rogue):
    """With `tripwire=False` a plugin isn't watched, while the plugin of another host is."""
    code = """
    class Main(Plugin):
        @export
        async def f(self) -> int:
            with open('/etc/passwd') as file: return len(file.read())
    """
    async with PluginHost(data_dir=tmp_path / "other", tripwire=False) as host:
        free = await host.load(write_plugin(tmp_path / "rogue2", code, plugin_id="rogue"))
        assert await free.call("f") > 0
        await rogue.refused("open('/etc/passwd')", "files", "open")
        assert await free.call("f") > 0


async def test_a_file_can_be_uploaded_whatever_its_name(tmp_path):
    """httpx reads the system's table of file types on first use, which must not be attributed to the plugin."""
    folder = write_plugin(
        tmp_path / "sender",
        """
        class Main(Plugin):
            @export
            async def type_of(self, name: str) -> str:
                request = self.http.build_request("POST", "http://h.example/", files={"f": (name, b"x")})
                return (await request.aread()).decode()
        """,
    )
    host = """
        import asyncio, sys
        from nyx_stream import PluginHost
        async def main():
            events = []
            async with PluginHost(audit=events.append, data_dir=sys.argv[2]) as host:
                handle = await host.load(sys.argv[1])
                print(await handle.call("type_of", name="a.txt"))
                print([event.target for event in events if event.layer == "tripwire"])
        asyncio.run(main())
        """
    # In a process of its own: here, the table may have been read already.
    command = [sys.executable, "-c", dedent(host), str(folder), str(tmp_path / "data")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert "Content-Type: text/plain" in done.stdout, done.stderr
    assert done.stdout.rstrip().endswith("[]")
