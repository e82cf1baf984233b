"""The cost of capabilities in a sealed plugin, next to the same plugin inline: one request, one small file, one echo.

Measures wall time inside the plugin, because each operation waits for the other side of a socket.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.http_server import serving
from benchmarks.measure import Result, Row, Target
from benchmarks.timing import Budget, Loop, interleave
from nyx_stream import PluginHost
from nyx_stream.errors import PluginError
from nyx_stream.plugin_sandbox import SandboxPolicy

_CODE = """
import time

from nyx_stream import Plugin, export

REQUEST = b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"


class BenchmarkPlugin(Plugin):
    async def setup(self) -> None:
        await self.files.write_bytes("small", bytes(1024))

    async def _get(self, port: int) -> None:
        await self.http.get(f"http://127.0.0.1:{port}/")

    async def _read(self, port: int) -> None:
        await self.files.read_bytes("small")

    async def _open(self, port: int) -> None:
        async with self.files.open("small", "rb"):
            pass

    async def _echo(self, port: int) -> None:
        await self._stream.send(REQUEST)
        await self._stream.receive()

    @export
    async def time(self, operation: str, port: int, count: int) -> float:
        if operation == "echo":
            self._stream = await self.connect("127.0.0.1", port)
        once = getattr(self, f"_{operation}")
        start = time.perf_counter()
        for _ in range(count):
            await once(port)
        taken = time.perf_counter() - start
        if operation == "echo":
            await self._stream.aclose()
        return taken
"""
_MANIFEST = """
id = "{name}"
version = "1.0.0"
entry = "bench_plugin:BenchmarkPlugin"
[permissions]
connect = ["127.0.0.1"]
write = ["$DATA"]
"""
_CLAIMS = {
    "get": ("GET of 200 bytes by a sealed plugin, against inline", Target("ratio", 3.0)),
    "read": ("read_bytes of 1 KiB by a sealed plugin, against inline", None),
    "open": ("opening and closing a file by a sealed plugin, against inline", None),
    "echo": ("question and answer over a raw connection of a sealed plugin, against inline", Target("ratio", 1.3)),
}


def run(budget: Budget) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder, serving() as server, asyncio.Runner() as runner:
        host = PluginHost(data_dir=f"{folder}/data")
        runner.run(host.__aenter__())
        try:
            inline = runner.run(_load(host, folder, "inline"))
            try:
                sealed = runner.run(_load(host, folder, "process"))
            except PluginError as error:
                for claim, target in _CLAIMS.values():
                    yield Row(claim, target=target, reason=str(error))
                return
            for operation, (claim, target) in _CLAIMS.items():
                loops = {
                    "sealed": _loop(runner, sealed, operation, server.port),
                    "inline": _loop(runner, inline, operation, server.port),
                }
                times = interleave(budget, loops)
                yield Row(claim, times["sealed"], times["inline"], target)
        finally:
            runner.run(host.__aexit__(None, None, None))


async def _load(host: PluginHost, folder: str, level: Any) -> Any:
    path = Path(folder) / level
    path.mkdir()
    (path / "plugin.toml").write_text(_MANIFEST.format(name=level), encoding="utf-8")
    (path / "bench_plugin.py").write_text(_CODE, encoding="utf-8")
    policy = SandboxPolicy.locked_down().allow_connect_host("127.0.0.1").allow_path_prefix("$DATA")
    return await host.load(path, policy=policy.with_limits(call_timeout="10min"), isolation=level)


def _loop(runner: asyncio.Runner, plugin: Any, operation: str, port: int) -> Loop:
    def repeat(count: int) -> float:
        taken: float = runner.run(plugin.call("time", operation=operation, port=port, count=count))
        return taken

    return repeat
