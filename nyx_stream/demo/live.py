"""The live demo as data: a plugin's authority is granted, used, narrowed and revoked while it runs, at one level after
the other, and the audit log of all of it is verified. Prints nothing.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
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
class Act:
    """One step: what was done, line by line, and what came of it. `held` tells whether that is what the step claims."""

    title: str
    done: tuple[str, ...]
    told: tuple[str, ...]
    held: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the log with one byte changed, in the line `line`."""

    path: str
    line: int
    before: str
    after: str


@dataclass(slots=True)
class Live:
    """A running demo: one log for all levels, in a directory that is removed at the end."""

    directory: str
    service: str
    _seen: int = 0

    @property
    def log(self) -> str:
        """The audit log."""
        return os.path.join(self.directory, "audit.jsonl")

    @property
    def policy(self) -> str:
        """The policy file."""
        return os.path.join(self.directory, "policy.toml")

    async def acts(self, level: Level) -> AsyncIterator[Act]:
        """Loads the plugin at a level, and yields what became of each step.

        Raises:
            PluginLoadError: this machine does not have the level.
        """
        await asyncio.to_thread(_write, self.policy, _NOTHING)
        data = os.path.join(self.directory, f"data-{level}")
        async with PluginHost(audit=self.log, data_dir=data) as host:
            courier = await host.load(FOLDER, policy=self.policy, isolation=level)
            yield await self._not_granted(courier)
            yield await self._granted(courier)
            yield await self._narrowed(courier)
            yield await self._revoked(courier)
            yield await self._gone(courier)

    def trail(self) -> list[AuditEvent]:
        """What was recorded since this was last asked; between two levels."""
        events = list(read_log(self.log))
        fresh, self._seen = events[self._seen :], len(events)
        return fresh

    def tamper(self) -> Copy:
        """Copies the log and changes one byte in the record of the revocation."""
        path = os.path.join(self.directory, "copy.jsonl")
        shutil.copyfile(self.log, path)
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
        number = next(place for place, line in enumerate(lines) if REASON.encode() in line)
        place = lines[number].index(REASON.encode()) + len(REASON) - 1
        changed = bytearray(lines[number])
        changed[place] ^= 1
        lines[number] = bytes(changed)
        with open(path, "wb") as file:
            file.writelines(lines)
        after = changed[place - len(REASON) + 1 : place + 1].decode()
        return Copy(path, number + 1, REASON, after)

    async def _not_granted(self, courier: Handle) -> Act:
        outcome = await _outcome(courier.call("forecast", service=self.service, city="oslo"))
        held = outcome.startswith("denied: ") and "no rule allows it" in outcome
        done = ('await courier.call("forecast", city="oslo")',)
        return Act("The service is not granted", done, (outcome,), held)

    async def _granted(self, courier: Handle) -> Act:
        text = _GRANTED.format(service=self.service)
        await asyncio.to_thread(_write, self.policy, text)
        await courier.update_policy(self.policy)
        outcome = await _outcome(courier.call("forecast", service=self.service, city="oslo"))
        done = ('await courier.update_policy("policy.toml")', 'await courier.call("forecast", city="oslo")')
        held = outcome == "allowed: {'city': 'oslo', 'degrees': -4, 'sky': 'snow'}"
        told = ("policy.toml is now", *(f"  {line}" for line in text.splitlines()), outcome)
        return Act("The operator grants it, while the plugin runs", done, told, held)

    async def _narrowed(self, courier: Handle) -> Act:
        attempts = await courier.call("hand_on", service=self.service)
        plain = [attempt if isinstance(attempt, dict) else attempt.model_dump() for attempt in attempts]
        told = tuple(f"{_verdict(each['allowed'])}: {each['what']}: {each['outcome']}" for each in plain)
        done = (
            "in the plugin:",
            'http = self.http.narrow("GET …/v1/oslo", ttl="60s")',
            'files = self.files.narrow("reports/", mode="r")',
        )
        held = [each["allowed"] for each in plain] == [True, False, False, True, False, False]
        return Act("The plugin hands on less than it holds", done, told, held)

    async def _revoked(self, courier: Handle) -> Act:
        told = []
        async with aclosing(courier.stream("follow", service=self.service)) as feed:
            told += [f"the plugin reads: {await anext(feed)}" for _ in range(2)]
            following = asyncio.ensure_future(anext(feed))
            await asyncio.wait((following,), timeout=0)  # it waits for the third line, which does not come
            await courier.revoke("http", reason=REASON)
            last = await following
        told.append(f"the plugin gets: {last}")
        done = ('feed = courier.stream("follow")', f'await courier.revoke("http", reason="{REASON}")')
        held = len(told) == 3 and last == f"Revoked(reason='revoked: {REASON}')"
        return Act("The operator revokes it, in the middle of a response", done, tuple(told), held)

    async def _gone(self, courier: Handle) -> Act:
        outcome = await _outcome(courier.call("forecast", service=self.service, city="oslo"))
        done = ('await courier.call("forecast", city="oslo")',)
        held = outcome.startswith("denied: ") and outcome.endswith(f"denied: revoked: {REASON}")
        return Act("It is gone, though the policy still grants it", done, (outcome,), held)


@asynccontextmanager
async def open_live() -> AsyncIterator[Live]:
    """Starts the service, with a temporary directory for everything else."""
    with tempfile.TemporaryDirectory(prefix="nyx-demo-") as directory:
        async with weather_service() as port:
            yield Live(directory, f"http://127.0.0.1:{port}")


async def _outcome(call: Awaitable[Any]) -> str:
    try:
        return f"allowed: {await call}"
    except SandboxDenied as denied:
        return f"denied: {denied}"


def _verdict(allowed: bool) -> str:
    return "allowed" if allowed else "denied"


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
