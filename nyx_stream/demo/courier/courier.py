"""A plugin whose authority changes while it runs. It hands on less than it holds, and is in use when that is taken."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from pydantic import BaseModel

from nyx_stream import Plugin, export
from nyx_stream.errors import Revoked, SandboxDenied


class Attempt(BaseModel):
    """What was tried, and its result, or why it was denied."""

    what: str
    allowed: bool
    outcome: str


class Courier(Plugin):
    """Forecasts, and a feed that it follows."""

    @export
    async def forecast(self, service: str, city: str) -> dict[str, Any]:
        """Asks the service."""
        forecast: dict[str, Any] = (await self.http.get(f"{service}/v1/{city}")).json()
        return forecast

    @export
    async def hand_on(self, service: str) -> list[Attempt]:
        """Has a part of itself work with less than it holds, and tries what that part was not given."""
        await self.files.mkdir("reports", exist_ok=True)
        await self.files.write_text("reports/today.txt", "snow")
        await self.files.write_text("notes.txt", "my own")
        http = self.http.narrow(f"GET {service}/v1/oslo", ttl="60s")
        files = self.files.narrow("reports/", mode="r")
        return [
            await _tried("http.get('/v1/oslo')", _text(http.get(f"{service}/v1/oslo"))),
            await _tried("http.get('/v1/lisbon')", _text(http.get(f"{service}/v1/lisbon"))),
            await _tried("http.narrow('/v1/**')", _widened(http, f"GET {service}/v1/**")),
            await _tried("files.read_text('reports/today.txt')", files.read_text("reports/today.txt")),
            await _tried("files.write_text('reports/today.txt')", files.write_text("reports/today.txt", "sun")),
            await _tried("files.read_text('notes.txt')", files.read_text("notes.txt")),
        ]

    @export
    async def follow(self, service: str) -> AsyncIterator[str]:
        """Streams a feed, line by line; says so when it is taken away."""
        try:
            async with self.http.stream("GET", f"{service}/v1/live", timeout=None) as reply:
                async for line in reply.aiter_lines():
                    yield line
        except Revoked as error:
            yield f"Revoked(reason={error.reason!r})"


async def _text(answer: Awaitable[Any]) -> str:
    text: str = (await answer).text
    return text


async def _widened(http: Any, rule: str) -> str:
    http.narrow(rule)
    return "it was given more than it holds"


async def _tried(what: str, act: Awaitable[object]) -> Attempt:
    try:
        return Attempt(what=what, allowed=True, outcome=str(await act))
    except SandboxDenied as denied:
        return Attempt(what=what, allowed=False, outcome=denied.reason)
