"""Worker side of `self.http`: an `HttpService` that has every request decided and sent by the host.

The client is the same as at level `inline`. What is its own work (redirects, cookies, authentication, decoding) runs
here, by the same code.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from functools import partial
from math import inf
from typing import Any

from nyx_stream.capabilities.http.service import FaultKind, HttpFault, HttpLimits, HttpReply, HttpRequest, Terms
from nyx_stream.errors import NetworkDenied, Revoked
from nyx_stream.isolation.remote.wire.body_stream import BodyStream, CutOff
from nyx_stream.isolation.remote.wire.messages import MAX_INLINE, CapabilityError, error_of, pack, unpack
from nyx_stream.isolation.remote.worker.bodies import adopt, ask_with_body
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub, RpcReply
from nyx_stream.policy import RequestRule

_KINDS = {kind.value: kind for kind in FaultKind}


class RemoteHttpService:
    """HTTP through the host. `parent` is the service that this one narrows: the host ends both with the first."""

    def __init__(self, stub: CapabilityStub, parent: "RemoteHttpService | None" = None) -> None:
        self.plugin = stub.plugin
        self._stub = stub
        self._parent = parent
        self._connections: asyncio.Semaphore | None = None
        self.revoked: Revoked | None = None
        """The error with which the host ended the lease."""
        stub.on_end(self._end)

    async def send(self, request: HttpRequest) -> "HttpReply[RemoteBody]":
        connections = await self._connection(request.timeouts.pool)
        try:
            answered = await self._fetch(request)
        except BaseException as error:
            connections.release()
            if isinstance(error, CapabilityError):
                raise _fault_of(error) from None
            raise
        answer = answered.value
        return HttpReply(
            answer["status"],
            answer["version"].encode("latin-1"),
            answer["reason"].encode("latin-1"),
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer["headers"]],
            RemoteBody(self, request.url, answer.get("content"), answered.descriptors, connections.release),
            HttpLimits(*answer["limits"]),
        )

    def early_denial(self, method: str, url: str, kind: type[NetworkDenied] = NetworkDenied) -> None:
        """Returns `None`: only the host decides."""

    async def refuse_redirect(self, scheme: str, location: str) -> NetworkDenied:
        try:
            await self._stub.ask("refuse_redirect", scheme=scheme, location=location)
        except NetworkDenied as denied:
            return denied
        raise RuntimeError("the host refused a redirect without a denial")

    def narrow(self, rules: Sequence[RequestRule], terms: Terms) -> "RemoteHttpService":
        """See `HttpService.narrow`. Raises also `LimitExceeded`: the host keeps no more narrowed services."""
        return RemoteHttpService(self._stub.narrow([rule.text for rule in rules], terms), self)

    async def aclose(self) -> None:
        """Ends a narrowed service. The plugin's own connections are the host's, and end with the plugin."""
        if self._stub.number:
            await self._stub.ask("close")

    async def _connection(self, timeout: float | None) -> asyncio.Semaphore:
        """Waits for one of the plugin's connections: a body that isn't read keeps one here, too."""
        if self._parent is not None:
            return await self._parent._connection(timeout)
        if self._connections is None:
            limits = HttpLimits(*(await self._stub.ask("limits")).value)
            if self._connections is None:  # another request may have asked meanwhile
                self._connections = asyncio.Semaphore(limits.connections)
        if self._connections.locked():
            try:
                async with asyncio.timeout(timeout):
                    await self._connections.acquire()
            except TimeoutError:
                raise HttpFault(FaultKind.POOL_TIMEOUT, "timed out") from None
        else:
            await self._connections.acquire()
        return self._connections

    def _fetch(self, request: HttpRequest) -> Awaitable[RpcReply]:
        body, timeouts = request.body, request.timeouts
        arguments: dict[str, Any] = {
            "method": request.method,
            "url": request.url,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
            "timeout": [timeouts.connect, timeouts.read, timeouts.write, timeouts.pool],
            "whole_body": request.whole_body,
            "flaw": request.flaw,
        }
        if isinstance(body, bytes):
            if not body:
                return self._stub.ask("fetch", **arguments)
            if len(body) <= MAX_INLINE:
                return self._stub.ask("fetch", content=pack(body), **arguments)
        return ask_with_body(self._stub, "fetch", body, **arguments)

    def _end(self, error: Exception) -> None:
        if isinstance(error, Revoked):
            self.revoked = error


class RemoteBody:
    """The body of one response: `content`, packed in the message that brought the head, or what comes in a pipe."""

    def __init__(
        self,
        service: RemoteHttpService,
        url: str,
        content: str | None,
        descriptors: tuple[int, ...],
        release: Callable[[], None],
    ) -> None:
        self._service = service
        self._url = url
        self._content = unpack(content) if content is not None else b""
        self._pipe: BodyStream | None = adopt(descriptors[0]) if descriptors else None
        self._release: Callable[[], None] | None = release

    async def read(self) -> bytes | None:
        return await self.read_all(1) or None

    async def aclose(self) -> None:
        """Gives the body up: the host stops sending the rest of it."""
        self._content = b""
        if self._release is not None:
            self._release()
            self._release = None
            if self._pipe is not None:
                self._pipe.close()

    async def read_all(self, size: float = inf) -> bytes:
        """Returns the rest of the body, or `size` bytes of it or a little more."""
        pipe = self._pipe
        if pipe is None or self._release is None:
            content = self._content
            await self.aclose()
            return content
        parts: list[bytes] = []
        try:
            while size > 0:
                self._check()
                if (chunk := await pipe.receive(partial(error_of, plugin=self._service.plugin))) is None:
                    await self.aclose()
                    break
                parts.append(chunk)
                size -= len(chunk)
        except BaseException as error:
            await self.aclose()
            if isinstance(error, CutOff):
                raise HttpFault(FaultKind.READ_ERROR, str(error)) from error
            if isinstance(error, CapabilityError):
                raise _fault_of(error) from None
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self) -> None:
        # What is in the pipe already was sent before the lease ended, and is not handed out any more.
        if self._service.revoked is not None:
            error = copy(self._service.revoked)
            error.action, error.target = "request", self._url
            raise error


def _fault_of(error: CapabilityError) -> Exception:
    """Returns the `HttpFault` that the host sent; any other error as it is."""
    kind = _KINDS.get(error.name)
    return error if kind is None else HttpFault(kind, error.message)
