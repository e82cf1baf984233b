"""The basic demo: calls that a plugin is allowed and denied, with their outcomes."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nyx_stream.audit import AuditEvent, read_log
from nyx_stream.demo.server import weather_service
from nyx_stream.errors import SandboxDenied
from nyx_stream.host import Handle, PluginHost

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "weather")

_POLICY = """\
[allow]
request = ["GET {service}/v1/**"]
read = ["./"]
write = ["$DATA"]
"""


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One call. `denial` is the error text if the sandbox denied it."""

    title: str
    call: str
    result: Any = None
    denial: str | None = None


@dataclass(slots=True)
class BasicDemo:
    """A running demo: the text of its policy file, the plugin, and after the end the audit log's events."""

    policy: str
    handle: Handle
    service: str
    trail: list[AuditEvent] = field(default_factory=list)

    async def steps(self) -> AsyncIterator[DemoStep]:
        """Makes each call, one allowed and one denied of each kind, and yields its outcome."""
        service = {"service": self.service}
        yield await self._step("A request that is granted", "forecast", **service, city="oslo")
        yield await self._step("A request that is not granted", "keys", **service)
        yield await self._step("Reading a file that is granted", "cities")
        yield await self._step("Reading a file that is not granted", "peek", path="/etc/passwd")
        yield await self._step("Reading a file in its own data directory", "last")
        yield await self._step("Writing where only reading is granted", "rewrite")
        yield await self._step("Bypassing its capabilities", "sneak")

    async def _step(self, title: str, method: str, **arguments: str) -> DemoStep:
        call = f"{method}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
        try:
            return DemoStep(title, call, result=await self.handle.call(method, **arguments))
        except SandboxDenied as denied:
            return DemoStep(title, call, denial=str(denied))


@asynccontextmanager
async def open_basic_demo() -> AsyncIterator[BasicDemo]:
    """Starts the service and loads the plugin under its policy, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="nyx-demo-") as directory:
        async with weather_service() as port:
            service = f"http://127.0.0.1:{port}"
            policy, log = os.path.join(directory, "policy.toml"), os.path.join(directory, "audit.jsonl")
            text = _POLICY.format(service=service)
            await asyncio.to_thread(Path(policy).write_text, text, encoding="utf-8")
            async with PluginHost(audit=log, data_dir=os.path.join(directory, "data")) as host:
                demo = BasicDemo(text, await host.load(FOLDER, policy=policy), service)
                yield demo
            demo.trail.extend(read_log(log))
