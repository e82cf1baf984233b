"""The live demo: a grant is added, used, narrowed and revoked while a plugin runs, at each isolation level in turn."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nyx_stream.audit import AuditEvent, read_log
from nyx_stream.demo.server import weather_service
from nyx_stream.errors import SandboxDenied
from nyx_stream.host import Handle, PluginHost
from nyx_stream.isolation.backend import Level

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "courier")
LEVELS: tuple[Level, ...] = ("inline", "process")
REASON = "incident 42"

_NOTHING = """\
[allow]
write = ["$DATA"]
"""
_GRANTED = """\
[allow]
request = ["GET {service}/v1/**"]
write = ["$DATA"]
"""


@dataclass(frozen=True, slots=True)
class DemoAction:
    """One action and its outcome, as lines of text. `as_claimed` is false if the outcome isn't what `title` says."""

    title: str
    calls: tuple[str, ...]
    outcome: tuple[str, ...]
    as_claimed: bool


@dataclass(frozen=True, slots=True)
class TamperedCopy:
    """A copy of the log with one byte changed, in line number `line`."""

    path: str
    line: int
    before: str
    after: str


@dataclass(slots=True)
class LiveDemo:
    """A running demo, with one log for all levels, in a temporary directory."""

    directory: str
    service: str
    _events_shown: int = 0

    @property
    def log(self) -> str:
        """Path of the audit log."""
        return os.path.join(self.directory, "audit.jsonl")

    @property
    def policy(self) -> str:
        """Path of the policy file."""
        return os.path.join(self.directory, "policy.toml")

    async def actions(self, level: Level) -> AsyncIterator[DemoAction]:
        """Loads the plugin at a level, carries out each action, and yields its outcome.

        Raises:
            PluginLoadError: this machine doesn't support the level.
        """
        await asyncio.to_thread(Path(self.policy).write_text, _NOTHING, encoding="utf-8")
        data = os.path.join(self.directory, f"data-{level}")
        async with PluginHost(audit=self.log, data_dir=data) as host:
            courier = await host.load(FOLDER, policy=self.policy, isolation=level)
            yield await self._deny(courier)
            yield await self._grant(courier)
            yield await self._narrow(courier)
            yield await self._revoke(courier)
            yield await self._revoked_call(courier)

    def trail(self) -> list[AuditEvent]:
        """Returns the events that were recorded since the last call."""
        events = list(read_log(self.log))
        new, self._events_shown = events[self._events_shown :], len(events)
        return new

    def tamper(self) -> TamperedCopy:
        """Copies the log and changes one byte in the record of the revocation."""
        path = os.path.join(self.directory, "copy.jsonl")
        shutil.copyfile(self.log, path)
        lines = Path(path).read_bytes().splitlines(keepends=True)
        number = next(index for index, line in enumerate(lines) if REASON.encode() in line)
        start = lines[number].index(REASON.encode())
        end = start + len(REASON)
        changed = bytearray(lines[number])
        changed[end - 1] ^= 1
        lines[number] = bytes(changed)
        Path(path).write_bytes(b"".join(lines))
        return TamperedCopy(path, number + 1, REASON, changed[start:end].decode())

    async def _deny(self, courier: Handle) -> DemoAction:
        outcome = await _outcome(courier.call("forecast", service=self.service, city="oslo"))
        as_claimed = outcome.startswith("denied: ") and "no rule allows it" in outcome
        calls = ('await courier.call("forecast", city="oslo")',)
        return DemoAction("The service is not granted", calls, (outcome,), as_claimed)

    async def _grant(self, courier: Handle) -> DemoAction:
        text = _GRANTED.format(service=self.service)
        await asyncio.to_thread(Path(self.policy).write_text, text, encoding="utf-8")
        await courier.update_policy(self.policy)
        outcome = await _outcome(courier.call("forecast", service=self.service, city="oslo"))
        calls = ('await courier.update_policy("policy.toml")', 'await courier.call("forecast", city="oslo")')
        as_claimed = outcome == "allowed: {'city': 'oslo', 'degrees': -4, 'sky': 'snow'}"
        lines = ("policy.toml is now", *(f"  {line}" for line in text.splitlines()), outcome)
        return DemoAction("The operator grants it while the plugin runs", calls, lines, as_claimed)

    async def _narrow(self, courier: Handle) -> DemoAction:
        attempts = await courier.call("attenuate", service=self.service)
        plain = [attempt if isinstance(attempt, dict) else attempt.model_dump() for attempt in attempts]
        lines = tuple(
            f"{'allowed' if each['allowed'] else 'denied'}: {each['what']}: {each['outcome']}" for each in plain
        )
        calls = (
            "in the plugin:",
            'http = self.http.narrow("GET …/v1/oslo", ttl="60s")',
            'files = self.files.narrow("reports/", mode="r")',
        )
        as_claimed = [each["allowed"] for each in plain] == [True, False, False, True, False, False]
        return DemoAction("The plugin narrows its capabilities", calls, lines, as_claimed)

    async def _revoke(self, courier: Handle) -> DemoAction:
        lines = []
        async with aclosing(courier.stream("follow", service=self.service)) as feed:
            lines += [f"the plugin reads: {await anext(feed)}" for _ in range(2)]
            following = asyncio.ensure_future(anext(feed))
            await asyncio.wait((following,), timeout=0)  # starts waiting for the third line, which never comes
            await courier.revoke("http", reason=REASON)
            last = await following
        lines.append(f"the plugin gets: {last}")
        calls = ('feed = courier.stream("follow")', f'await courier.revoke("http", reason="{REASON}")')
        as_claimed = len(lines) == 3 and last == f"Revoked(reason='revoked: {REASON}')"
        return DemoAction("The operator revokes it in the middle of a response", calls, tuple(lines), as_claimed)

    async def _revoked_call(self, courier: Handle) -> DemoAction:
        outcome = await _outcome(courier.call("forecast", service=self.service, city="oslo"))
        calls = ('await courier.call("forecast", city="oslo")',)
        as_claimed = outcome.startswith("denied: ") and outcome.endswith(f"denied: revoked: {REASON}")
        return DemoAction("It stays revoked, though the policy still grants it", calls, (outcome,), as_claimed)


@asynccontextmanager
async def open_live_demo() -> AsyncIterator[LiveDemo]:
    """Starts the service and creates the temporary directory."""
    with tempfile.TemporaryDirectory(prefix="nyx-demo-") as directory:
        async with weather_service() as port:
            yield LiveDemo(directory, f"http://127.0.0.1:{port}")


async def _outcome(call: Awaitable[Any]) -> str:
    try:
        return f"allowed: {await call}"
    except SandboxDenied as denied:
        return f"denied: {denied}"
