"""One request and its response: the parts that were checked, the bounds they run under, and what has been spent.

Decides and counts; does no I/O.
"""

import time
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from nyx_stream.capabilities.http.errors import Exceeded
from nyx_stream.capabilities.lease import Lease

RawHeaders = list[tuple[bytes, bytes]]

READ_AHEAD = 1024 * 1024
"""Bytes that may have been read beyond the message they belong to."""

CHUNKS_AT_ONCE = 32
"""Chunks of a body that are handed on in one turn of the loop. A peer may send them with one byte in each."""

MOST_HEADERS = 256
"""Header lines in one message. A browser's limit is of this size; a peer's endless list is cut off here."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each kind of waiting, as httpx has them; `None` leaves only the exchange's own deadline."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one exchange may cost: bytes of each body, bytes of the response's headers, seconds altogether."""

    request_bytes: int
    response_bytes: int
    header_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and headers of a response, as they came."""

    status: int
    version: bytes
    reason: bytes
    headers: RawHeaders


class Origin(NamedTuple):
    """Where a request goes: canonical, as the guard's verdict has it."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent ahead of a body: built from a verdict and from headers that were checked."""

    method: str
    target: bytes
    headers: RawHeaders = field(repr=False)


class Sink(Protocol):
    """Where a body is passed on to."""

    def offer(self, chunk: bytes | memoryview) -> bool:
        """Takes some bytes at once; returns whether it can take more before it was drained."""

    async def drain(self) -> None:
        """Waits until it can take more."""


class Exchange:
    """A request on its way. Every wait is cut to the deadline, every byte counted against its bound and its lease.

    `secrets` are those among the headers that were sent, to be kept out of what the plugin gets back.
    """

    __slots__ = (
        "_arrived", "_declared", "_lease", "_received", "_sent", "body", "bounds", "deadline", "head", "message",
        "origin", "secrets", "timeouts",
    )  # fmt: skip

    def __init__(
        self,
        origin: Origin,
        message: Message,
        body: bytes | AsyncIterable[bytes],
        timeouts: Timeouts,
        bounds: Bounds,
        lease: Lease,
        secrets: tuple[bytes, ...] = (),
    ) -> None:
        self.origin = origin
        self.message = message
        self.body = body
        self.timeouts = timeouts
        self.bounds = bounds
        self.secrets = secrets
        self.deadline = time.monotonic() + bounds.seconds
        self.head: Head | None = None
        self._lease = lease
        self._sent = 0
        self._arrived = 0
        self._received = 0
        self._declared = 0

    def wait(self, seconds: float | None) -> float:
        """How long a wait of that kind may take now: no longer than what is left of the exchange."""
        left = max(self.deadline - time.monotonic(), 0.0)
        return left if seconds is None else min(seconds, left)

    def leaves(self, count: int) -> None:
        """Counts bytes that are about to go to the wire, whatever they are. Raises `Spent`."""
        self._lease.spend("bytes_out", count)

    def sent(self, count: int) -> None:
        """Counts bytes of the request body. Raises `Exceeded`."""
        self._sent += count
        if self._sent > self.bounds.request_bytes:
            raise Exceeded("request_bytes", self.bounds.request_bytes, "the request body is too large")

    def arrived(self, count: int) -> None:
        """Counts bytes from the wire, whatever they are: framing may not outgrow what it frames.

        Raises `Exceeded` and `Spent`.
        """
        self._arrived += count
        self._lease.spend("bytes_in", count)
        if self._arrived > 2 * self.bounds.response_bytes + self.bounds.header_bytes + READ_AHEAD:
            raise Exceeded("response_bytes", self.bounds.response_bytes, "the response is mostly framing")

    def received(self, count: int) -> None:
        """Counts bytes of the response body, still encoded. Raises `Exceeded`."""
        self._received += count
        if self._received > self.bounds.response_bytes:
            raise Exceeded("response_bytes", self.bounds.response_bytes, "the response body is too large")

    @property
    def taken(self) -> int:
        """Bytes of the response body that were received, still encoded."""
        return self._received

    @property
    def left(self) -> int:
        """Bytes of the response body that are still to come, as far as its headers say; 0 if they do not."""
        return max(self._declared - self._received, 0)

    def check_declared(self) -> None:
        """Called before a whole body is read. Raises `Exceeded` if the response says that it is too large."""
        if self._declared > self.bounds.response_bytes:
            raise Exceeded("response_bytes", self.bounds.response_bytes, "the response body is too large")

    def head_pending(self) -> None:
        """Called while the response's headers are incomplete. Raises `Exceeded`."""
        if self._arrived > self.bounds.header_bytes:
            raise Exceeded("header_bytes", self.bounds.header_bytes, "the response headers do not end")

    def head_complete(self, head: Head) -> None:
        """Takes the response's headers. Raises `Exceeded` if they are too many or too large."""
        if len(head.headers) > MOST_HEADERS:
            raise Exceeded("header_bytes", self.bounds.header_bytes, f"more than {MOST_HEADERS} headers")
        if sum(len(name) + len(value) + 4 for name, value in head.headers) > self.bounds.header_bytes:
            raise Exceeded("header_bytes", self.bounds.header_bytes, "the response headers are too large")
        self.head = head
        self._declared = next((int(value) for name, value in head.headers if name.lower() == b"content-length"), 0)
