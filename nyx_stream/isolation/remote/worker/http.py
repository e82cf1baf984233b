"""Worker side of `self.http`: the same client as at level `inline`, whose every exchange is made by the host.

What of the client is its own work (redirects, cookies, authentication, decoding) is done here, by the same code; what
touches the network, and every decision, is asked of the host. Its errors come back as the library's own.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn

from nyx_stream.capabilities.http.client import HTTPX, GuardedClient
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter
from nyx_stream.capabilities.http.service import Passage, Terms
from nyx_stream.errors import Revoked
from nyx_stream.isolation.remote.wire.messages import MAX_INLINE, pack
from nyx_stream.isolation.remote.worker.bodies import ask_with_body, whole
from nyx_stream.isolation.remote.worker.http_body import Body, Facts
from nyx_stream.isolation.remote.worker.http_errors import raise_as
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub, RpcReply
from nyx_stream.policy import RequestRule

_KINDS = ("connect", "read", "write", "pool")

_wholly: ContextVar[bool] = ContextVar("nyx_whole_response", default=False)
"""Whether the response of the request under way will be read as a whole."""


class RedirectRefused(Exception):
    """The client will not follow a `Location`; the host has still to be told."""

    def __init__(self, request: Any, location: str) -> None:
        self.request = request
        self.location = location
        super().__init__(location)


@dataclass(slots=True)
class Granted:
    """What all clients of the plugin have in common, the narrowed ones too."""

    facts: Facts | None = None
    room: asyncio.Semaphore | None = None


@dataclass(frozen=True, slots=True)
class RemotePassage(Passage):
    """A passage, and the gate that it leads through."""

    remote: "RemoteGate"


class RemoteGate:
    """The way of one client's requests to the host; `above` is the gate that it narrows.

    Whatever came through it keeps it: the host ends what was narrowed when its gate is gone.
    """

    def __init__(self, line: CapabilityStub, above: "RemoteGate | None" = None) -> None:
        self._line = line
        self._above = above
        self._granted: Granted = Granted() if above is None else above._granted
        self._over: str | None = None
        line.on_end(self._end)

    def passage(self, dialect: LibraryAdapter, *, owner: bool = True) -> RemotePassage:
        """What a client of the dialect's library needs; only its owner ends what was narrowed."""
        return RemotePassage(
            forbid_text=_pass,
            forbid=_pass,
            exchange=lambda request: self.exchange(dialect, request),
            refuse_redirect=_refuse,
            most_redirects=lambda: self.facts.redirects,
            aclose=self._close if owner and self._line.narrowed else _closed,
            turned=lambda other: self.passage(other, owner=False),
            narrowed=lambda rules, terms: self._narrowed(rules, terms).passage(dialect),
            watch=_unwatched,
            remote=self,
        )

    @property
    def facts(self) -> Facts:
        """What the host said, which `ready` asked for."""
        if self._granted.facts is None:
            raise RuntimeError("the client has not been used yet")
        return self._granted.facts

    async def ready(self) -> None:
        """Asks for the facts, once. Raises `Revoked`."""
        if self._granted.facts is None:
            self._learn((await self._line.ask("facts")).value)

    async def exchange(self, dialect: LibraryAdapter, request: Any) -> Any:
        """Has the host send a request; returns the response, its body unread. Raises the dialect's errors."""
        started = time.perf_counter()
        await self.ready()
        room = await self._enter(dialect, request)
        try:
            answered = await self._fetch(dialect, request)
        except BaseException as error:
            room.release()
            raise_as(dialect, request, error)
            raise
        self._learn(answered.value)
        return self._land(Body(dialect, request, answered, self.facts, self.check, room.release), started)

    def check(self, dialect: LibraryAdapter, request: Any) -> None:
        """Raises the dialect's `Revoked` once the host has said that the lease ended."""
        if self._over is not None:
            error = dialect.revoked(
                plugin=self.facts.plugin,
                capability=self._line.capability,
                action="request",
                target=str(request.url),
                rule=None,
                reason=self._over,
            )
            raise_as(dialect, request, error)

    async def report(self, dialect: LibraryAdapter, refused: RedirectRefused) -> NoReturn:
        """Tells the host of a redirect that is not followed. Raises the denial."""
        request = refused.request
        try:
            await self._line.ask("redirect", method=request.method, url=str(request.url), location=refused.location)
        except Exception as error:
            raise_as(dialect, request, error)
            raise
        raise RuntimeError("the host followed a redirect")

    async def _enter(self, dialect: LibraryAdapter, request: Any) -> asyncio.Semaphore:
        """Waits for a place: a body that is not read keeps one, as it keeps a connection."""
        room = self._granted.room
        if room is None:
            room = self._granted.room = asyncio.Semaphore(self.facts.connections)
        if room.locked():
            limit = (request.extensions.get("timeout") or {}).get("pool")
            try:
                async with asyncio.timeout(limit):
                    await room.acquire()
            except TimeoutError:
                raise dialect.library.PoolTimeout("timed out", request=request) from None
        else:
            await room.acquire()
        return room

    async def _fetch(self, dialect: LibraryAdapter, request: Any) -> RpcReply:
        stream = request.stream
        arguments: dict[str, Any] = {
            "method": str(request.method),
            "url": str(request.url),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
            "timeout": _timeout(request.extensions.get("timeout")),
            "whole": _wholly.get(),
        }
        if isinstance(stream, dialect.library.ByteStream):
            content = b"".join(stream)
            if len(content) <= MAX_INLINE:
                return await self._line.ask("fetch", content=pack(content), **arguments)
            stream = whole(content)
        elif not hasattr(stream, "__aiter__"):
            raise RuntimeError("Attempted to send an sync request with an AsyncClient instance.")
        return await ask_with_body(self._line, "fetch", stream, **arguments)

    def _learn(self, value: dict[str, Any]) -> None:
        self._granted.facts = Facts(*(value[name] for name in Facts._fields))

    def _land(self, body: Body, started: float) -> Any:
        value, dialect = body.head, body.dialect
        response = dialect.response(
            value["status"],
            headers=[(name.encode("latin-1"), text.encode("latin-1")) for name, text in value["headers"]],
            stream=dialect.body(body.next, body.drain, body.close),
            extensions={
                "http_version": value["version"].encode("latin-1"),
                "reason_phrase": value["reason"].encode("latin-1"),
            },
            request=body.request,
        )
        response.begin(self.facts.plugin, self.facts.response_bytes, started)
        return response

    def _narrowed(self, rules: Sequence[RequestRule], terms: Terms) -> "RemoteGate":
        return RemoteGate(self._line.narrow([rule.text for rule in rules], terms), self)

    async def _close(self) -> None:
        await self._line.ask("close")

    def _end(self, error: Exception) -> None:
        self._over = error.reason if isinstance(error, Revoked) else str(error)


def _timeout(given: Any) -> dict[str, float | None] | None:
    """What the message can carry; a negative number stands for anything else, which the host refuses as it would."""
    if given is None:
        return None
    seconds = {kind: given.get(kind) for kind in _KINDS} if isinstance(given, dict) else {_KINDS[0]: given}
    plain = all(value is None or (type(value) in (int, float) and isfinite(value)) for value in seconds.values())
    return seconds if plain and isinstance(given, dict) else dict.fromkeys(_KINDS, -1.0)


def _pass(*_: Any) -> None:
    """Refuses nothing: the host decides."""


def _unwatched(_told: Callable[[Revoked], None]) -> Callable[[], None]:
    """The host tells the gate itself."""
    return _pass


def _refuse(request: Any, location: str, _reason: str) -> NoReturn:
    raise RedirectRefused(request, location)


async def _closed() -> None:
    """The connections are the host's, and end with the plugin."""


class Remote:
    """Mixed in before a guarded client: its gate is at the host."""

    dialect: Any
    _gate: Passage

    @property
    def _remote(self) -> RemoteGate:
        if not isinstance(self._gate, RemotePassage):
            raise TypeError("a remote client has a remote passage")
        return self._gate.remote

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Sends a request, as the library does."""
        wholly = _wholly.set(not stream)
        try:
            await self._remote.ready()
            return await super().send(request, stream=stream, **options)  # type: ignore[misc]  # the client's
        except RedirectRefused as refused:
            await self._remote.report(self.dialect, refused)
        except Revoked as error:
            raise_as(self.dialect, request, error)
            raise
        finally:
            _wholly.reset(wholly)


class RemoteClient(Remote, GuardedClient):
    """An `httpx.AsyncClient` whose requests are made by the host."""

    def as_httpx2(self, **choices: Any) -> Any:
        """A client for SDKs that ask for an `httpx2.AsyncClient`, with cookies of its own."""
        from nyx_stream.capabilities.http.client_httpx2 import HTTPX2
        from nyx_stream.isolation.remote.worker.httpx2 import RemoteHttpx2Client

        return RemoteHttpx2Client.through(self._gate.turned(HTTPX2), **choices)


def http(line: CapabilityStub) -> RemoteClient:
    """A `ProxyFactory`."""
    return RemoteClient.through(RemoteGate(line).passage(HTTPX))
