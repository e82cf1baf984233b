"""A plugin can't write to the folder that another plugin is imported from."""

from pathlib import Path

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import FilesystemDenied
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import write_plugin

WRITER = """
    class Main(Plugin):
        @export
        async def write(self, path: str) -> None: await self.files.write_text(path, "evil")
    """
QUIET = """
    class Main(Plugin):
        @export
        async def hello(self) -> str: return "hello"
    """


async def test_a_plugin_that_runs_cannot_write_one_that_was_loaded_after_it(tmp_path: Path) -> None:
    """This holds even if its policy grants the folder. Writing next to it still works."""
    writer = write_plugin(tmp_path / "writer", WRITER, permissions=f"write = ['{tmp_path}']")
    later = write_plugin(tmp_path / "later", QUIET)
    policy = SandboxPolicy.locked_down().allow_path_prefix(tmp_path)
    async with PluginHost(data_dir=tmp_path / "data") as host:
        handle = await host.load(writer, policy=policy)
        await handle.call("write", path=str(tmp_path / "free.txt"))
        await host.load(later)
        with pytest.raises(FilesystemDenied, match="plugin code is imported from there"):
            await handle.call("write", path=str(later / "main.py"))
        with pytest.raises(FilesystemDenied, match="plugin code is imported from there"):
            await handle.call("write", path=str(writer / "main.py"))
        assert "evil" not in (later / "main.py").read_text()
        await handle.call("write", path=str(tmp_path / "free.txt"))
