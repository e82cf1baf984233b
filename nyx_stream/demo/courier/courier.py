"""A plugin whose grants change while it runs, and which passes narrowed capabilities to a part of itself."""

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from pydantic import BaseModel

from nyx_stream import Plugin, export
from nyx_stream.errors import Revoked, SandboxDenied


class Attempt(BaseModel):
    """An action with its result, or the reason for its denial."""

    what: str
    allowed: bool
    outcome: str


class Courier(Plugin):
    """Fetches forecasts and follows a feed."""

    @export
    async def forecast(self, service: str, city: str) -> dict[str, Any]:
        """Requests a forecast."""
        forecast: dict[str, Any] = (await self.http.get(f"{service}/v1/{city}")).json()
        return forecast

    @export
    async def attenuate(self, service: str) -> list[Attempt]:
        """Narrows its capabilities and tries actions inside and outside the narrowed grant."""
        await self.files.mkdir("reports", exist_ok=True)
        await self.files.write_text("reports/today.txt", "snow")
        await self.files.write_text("notes.txt", "private")
        http = self.http.narrow(f"GET {service}/v1/oslo", ttl="60s")
        files = self.files.narrow("reports/", mode="r")
        return [
            await _try("http.get('/v1/oslo')", _text(http.get(f"{service}/v1/oslo"))),
            await _try("http.get('/v1/lisbon')", _text(http.get(f"{service}/v1/lisbon"))),
            await _try("http.narrow('/v1/**')", _try_to_widen(http, f"GET {service}/v1/**")),
            await _try("files.read_text('reports/today.txt')", files.read_text("reports/today.txt")),
            await _try("files.write_text('reports/today.txt')", files.write_text("reports/today.txt", "sun")),
            await _try("files.read_text('notes.txt')", files.read_text("notes.txt")),
        ]

    @export
    async def follow(self, service: str) -> AsyncIterator[str]:
        """Streams a feed line by line, and reports when its capability is revoked."""
        try:
            async with self.http.stream("GET", f"{service}/v1/live", timeout=None) as reply:
                async for line in reply.aiter_lines():
                    yield line
        except Revoked as error:
            yield f"Revoked(reason={error.reason!r})"


async def _text(response: Awaitable[Any]) -> str:
    text: str = (await response).text
    return text


async def _try_to_widen(http: Any, rule: str) -> str:
    http.narrow(rule)
    return "it was widened"


async def _try(what: str, action: Awaitable[object]) -> Attempt:
    try:
        return Attempt(what=what, allowed=True, outcome=str(await action))
    except SandboxDenied as denied:
        return Attempt(what=what, allowed=False, outcome=denied.reason)
