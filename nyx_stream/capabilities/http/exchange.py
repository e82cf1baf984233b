"""One request and its response as the transport sees them: checked parts, bounds, and what has been spent.

Decides and counts; the transport does the I/O.
"""

import time
from collections.abc import AsyncIterable
from typing import NamedTuple, TypeAlias

from nyx_stream.capabilities.http.service import FaultKind, HttpFault, RawHeaders, Timeouts
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import LimitExceeded
from nyx_stream.guard import RequestVerdict
from nyx_stream.policy import Limits

READ_AHEAD = 1024 * 1024
"""Bytes that may have been read beyond the message that they belong to."""

CHUNKS_AT_ONCE = 32
"""Chunks of a body that are handed on in one turn of the loop. A peer may send chunks of one byte each."""

MAX_HEADERS = 256
"""Header lines in one message, about a browser's limit. A longer list is refused."""

_WITHOUT_BODY = (204, 304)


class RequestRefused(Exception):
    """The guarded client itself refuses something about a request; the text is the reason of the denial."""


Origin: TypeAlias = tuple[str, str, int]
"""Scheme, canonical host and port."""


class ResponseHead(NamedTuple):
    """Status line and headers of a response, as they came."""

    status: int
    version: bytes
    reason: bytes
    headers: RawHeaders


class Exchange:
    """Keeps the bounds of one request: cuts each wait to the deadline, counts each byte against its limit and lease.

    Args:
        verdict: the guard's, whose canonical parts are sent.
        headers: the checked headers to send.
    """

    __slots__ = (
        "_arrived", "_declared", "_sent", "body", "deadline", "headers", "lease", "limits", "received", "timeouts",
        "verdict",
    )  # fmt: skip

    def __init__(
        self,
        verdict: RequestVerdict,
        headers: RawHeaders,
        body: bytes | AsyncIterable[bytes],
        timeouts: Timeouts,
        limits: Limits,
        lease: Lease,
    ) -> None:
        self.verdict = verdict
        self.headers = headers
        self.body = body
        self.timeouts = timeouts
        self.limits = limits
        self.lease = lease
        self.deadline = time.monotonic() + limits.request_timeout
        self.received = 0
        """Bytes of the response body, still encoded."""
        self._sent = 0
        self._arrived = 0
        self._declared = 0

    def wait(self, seconds: float | None) -> float:
        """Returns how long a wait of that kind may take now: no longer than what is left until the deadline."""
        left = max(self.deadline - time.monotonic(), 0.0)
        return left if seconds is None else min(seconds, left)

    def sent(self, count: int) -> None:
        """Counts bytes of the request body. Raises `LimitExceeded`."""
        self._sent += count
        if self._sent > self.limits.request_bytes:
            raise self._exceeded("request_bytes", self.limits.request_bytes, "the request body is too large")

    def arrived(self, count: int) -> None:
        """Counts bytes from the wire, body and framing: framing may not outgrow what it frames.

        Raises `LimitExceeded` and `Spent`.
        """
        self._arrived += count
        self.lease.spend("bytes_in", count)
        if self._arrived > 2 * self.limits.response_bytes + self.limits.header_bytes + READ_AHEAD:
            raise self._too_large("the response is mostly framing")

    def head_pending(self) -> None:
        """Called while the response's headers are incomplete. Raises `LimitExceeded`."""
        if self._arrived > self.limits.header_bytes:
            raise self._exceeded("header_bytes", self.limits.header_bytes, "the response headers do not end")

    def head_complete(self, status: int, headers: RawHeaders) -> None:
        """Checks the response's headers. Raises `LimitExceeded`, and `HttpFault` for framing that is ambiguous."""
        size, framings = 0, 0
        for name, value in headers:
            size += len(name) + len(value) + 4
            lower = name.lower()
            if lower == b"content-length":
                self._declared = int(value)
                framings += 1
            elif lower == b"transfer-encoding":
                framings += 1
        if framings > 1:
            # Two readers that each believe another one of the two disagree on the response's end (RFC 9112, 6.3).
            raise HttpFault(FaultKind.REMOTE_PROTOCOL_ERROR, "both Content-Length and Transfer-Encoding")
        if len(headers) > MAX_HEADERS:
            raise self._exceeded("header_bytes", self.limits.header_bytes, f"more than {MAX_HEADERS} headers")
        if size > self.limits.header_bytes:
            raise self._exceeded("header_bytes", self.limits.header_bytes, "the response headers are too large")
        if self.verdict.method == "HEAD" or status in _WITHOUT_BODY:
            self._declared = 0

    def body_received(self, count: int) -> None:
        """Counts bytes of the response body, still encoded. Raises `LimitExceeded`."""
        self.received += count
        if self.received > self.limits.response_bytes:
            raise self._too_large("the response body is too large")

    @property
    def left(self) -> int:
        """Bytes of the response body that are still to come, by its headers; 0 if they do not say."""
        return max(self._declared - self.received, 0)

    def check_declared(self) -> None:
        """Called before a whole body is read. Raises `LimitExceeded` if the response declares that it is too large."""
        if self._declared > self.limits.response_bytes:
            raise self._too_large("the response body is too large")

    def _too_large(self, detail: str) -> LimitExceeded:
        return self._exceeded("response_bytes", self.limits.response_bytes, detail)

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self.lease.plugin, limit=limit, allowed=allowed, detail=detail)
