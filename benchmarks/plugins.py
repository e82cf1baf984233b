"""Writes the plugin that several benchmarks use."""

from pathlib import Path

_CODE = """
from collections.abc import AsyncIterator

from nyx_stream import Plugin, export


class BenchmarkPlugin(Plugin):
    @export
    async def empty(self) -> None:
        pass

    @export
    async def echo(self, text: str) -> str:
        return text

    @export
    async def download(self, url: str) -> int:
        got = 0
        async with self.http.stream("GET", url) as response:
            async for piece in response.aiter_bytes():
                got += len(piece)
        return got
"""


def write_plugin(folder: str, name: str = "bench", *, request: str | None = None) -> str:
    """Writes a plugin below `folder` and returns its folder. `request` is the request rule of its manifest."""
    path = Path(folder) / name
    path.mkdir()
    permissions = f'[permissions]\nrequest = ["{request}"]\n[limits]\nresponse_bytes = "4GiB"\ncall_timeout = "10min"\n'
    (path / "plugin.toml").write_text(
        f'id = "{name}"\nversion = "1.0.0"\nentry = "bench_plugin:BenchmarkPlugin"\n{permissions if request else ""}',
        encoding="utf-8",
    )
    (path / "bench_plugin.py").write_text(_CODE, encoding="utf-8")
    return str(path)
