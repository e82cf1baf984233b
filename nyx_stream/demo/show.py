"""The demo as data: what is called, and what became of it. Prints nothing."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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
class Step:
    """One call. `denial` is the text of the error where the sandbox refused."""

    title: str
    call: str
    result: Any = None
    denial: str | None = None


@dataclass(slots=True)
class Show:
    """A running demo: `policy` is the text of its policy file, `trail` the audit log."""

    policy: str
    handle: Handle
    service: str
    trail: list[AuditEvent] = field(default_factory=list)

    async def steps(self) -> AsyncIterator[Step]:
        """Makes each call, one allowed and one denied of each kind, and yields what became of it."""
        service = {"service": self.service}
        yield await self._step("A request that is granted", "forecast", **service, city="oslo")
        yield await self._step("A request that is not", "keys", **service)
        yield await self._step("Reading a file that is granted", "cities")
        yield await self._step("Reading one that is not", "peek", path="/etc/passwd")
        yield await self._step("Reading what it wrote into its own data directory", "last")
        yield await self._step("Writing where it may only read", "rewrite")
        yield await self._step("Going round its capabilities", "sneak")

    async def _step(self, title: str, method: str, **arguments: str) -> Step:
        call = f"{method}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
        try:
            return Step(title, call, result=await self.handle.call(method, **arguments))
        except SandboxDenied as denied:
            return Step(title, call, denial=str(denied))


@asynccontextmanager
async def open_show() -> AsyncIterator[Show]:
    """Starts the service and loads the plugin under its policy, in a temporary directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="nyx-demo-") as directory:
        async with weather_service() as port:
            service = f"http://127.0.0.1:{port}"
            policy, log = os.path.join(directory, "policy.toml"), os.path.join(directory, "audit.jsonl")
            text = _POLICY.format(service=service)
            await asyncio.to_thread(_write, policy, text)
            async with PluginHost(audit=log, data_dir=os.path.join(directory, "data")) as host:
                show = Show(text, await host.load(FOLDER, policy=policy), service)
                yield show
            show.trail.extend(read_log(log))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
