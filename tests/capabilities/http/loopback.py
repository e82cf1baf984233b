"""Servers on loopback that say what a test tells them, and a network that leads every name to them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from nyx_stream.audit import AuditEvent
from nyx_stream.capabilities.http import GuardedClient, NetworkBackend
from nyx_stream.capabilities.http.local_service import LocalHttpService
from nyx_stream.capabilities.http.service import FaultKind, HttpFault
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

PUBLIC = "93.184.215.14"


@dataclass
class Received:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header, or `None`."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1
        return values[0] if values else None


def reply(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole response; `content_type="…"` becomes `content-type: …`."""
    lines = [f"HTTP/1.1 {status} Said".encode()]
    named = {"content-length": str(len(body))} | {key.replace("_", "-"): value for key, value in headers.items()}
    lines += [f"{key}: {value}".encode() for key, value in named.items()]
    return b"\r\n".join([*lines, b"", body])


_EMPTY = reply()
Answer = Callable[[Received], "bytes | AsyncIterator[bytes]"]


class Server:
    """Answers each request by a function of it: bytes, or pieces after which it closes the connection."""

    def __init__(self, answer: Answer | bytes = _EMPTY, *, context: ssl.SSLContext | None = None) -> None:
        self._answer: Answer = answer if callable(answer) else lambda _: answer
        self._context = context
        self.accepted = 0
        self.requests: list[Received] = []

    @property
    def connected(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._connections: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while (received := await _read(reader)) is not None:
                self.requests.append(received)
                answer = self._answer(received)
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    if b"connection: close" not in answer[:500]:
                        continue
                else:
                    async for piece in answer:
                        writer.write(piece)
                        await writer.drain()
                return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {key.lower(): value for key, value in pairs}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif length := int(headers.get("content-length", "0")):
        body = await reader.readexactly(length)
    return Received(method, target, [(key, value) for key, value in pairs], body)


class NamedNetwork(NetworkBackend):
    """Answers look-ups from a table of successive answers, and leads every dial to one port on loopback."""

    def __init__(
        self,
        port: int,
        answers: Mapping[str, list[list[str]]] | None = None,
        *,
        dead: frozenset[str] = frozenset(),
        trust: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(trust=trust)
        self._port = port
        self._answers = {name: list(given) for name, given in (answers or {}).items()}
        self._dead = dead
        self.looked_up: list[str] = []
        self.dialled: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.looked_up.append(host)
        given = self._answers.get(host, [[PUBLIC]])
        answer = given.pop(0) if len(given) > 1 else given[0]
        if answer == ["<hang>"]:
            await asyncio.Event().wait()
        return answer

    async def dial(self, addresses: Sequence[str], port: int) -> Any:
        for address in addresses:
            self.dialled.append(address)
            if address not in self._dead:
                sock, _ = await super().dial(["127.0.0.1"], self._port)
                return sock, address
        raise ConnectionRefusedError(111, "Connection refused")


@dataclass
class Plugin:
    """One plugin's side of a test: its guard, lease, client and what was audited."""

    policy: SandboxPolicy
    network: NetworkBackend | None = None
    kind: type[Any] = GuardedClient
    name: str = "weather"
    events: list[AuditEvent] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[LocalHttpService]:
        """The plugin's HTTP service, without a client."""
        self.guard = SandboxGuard(self.policy, plugin=self.name, audit=self.events.append)
        self.lease = Lease(self.name, "http")
        self.service = LocalHttpService(self.guard, self.lease, self.network)
        try:
            yield self.service
        finally:
            await self.service.aclose()

    @asynccontextmanager
    async def client(self, **choices: Any) -> AsyncIterator[Any]:
        """The plugin's guarded client; on a busy machine the library's own five seconds may pass before it is asked."""
        choices.setdefault("timeout", 30)
        async with self.serving() as service, self.kind(service, **choices) as client:
            yield client

    @property
    def denials(self) -> list[AuditEvent]:
        """The audited refusals."""
        return [event for event in self.events if not event.allowed]


def loopback(server: Server, **options: Any) -> Plugin:
    """A plugin that may ask anything of the server by its address."""
    return Plugin(SandboxPolicy.locked_down().allow_connect_host(f"127.0.0.1:{server.port}"), **options)


@contextmanager
def faults(kind: FaultKind) -> Iterator[None]:
    """Expects an `HttpFault` of that kind."""
    with pytest.raises(HttpFault) as caught:
        yield
    assert caught.value.kind is kind


async def until(reached: Callable[[], bool]) -> None:
    """Lets the event loop run until `reached`, where a test has no event to wait for."""
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0)
