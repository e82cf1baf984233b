"""Worker side of one response's body: read as it comes, within the limits of the grant. Knows nothing of requests."""

from collections.abc import Callable
from typing import Any, NamedTuple

from nyx_stream.capabilities.http.library_adapter import LibraryAdapter
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.wire.body_stream import BodyStream, CutOff
from nyx_stream.isolation.remote.wire.messages import RemoteFault, error_of, unpack
from nyx_stream.isolation.remote.worker.bodies import adopt
from nyx_stream.isolation.remote.worker.http_errors import raise_as
from nyx_stream.isolation.remote.worker.rpc import RpcReply


class Facts(NamedTuple):
    """What the host says about the grant."""

    plugin: str
    redirects: int
    connections: int
    response_bytes: int


class Body:
    """The body of one response: in the message that brought the head, or in a pipe.

    Args:
        dialect: the library that the plugin reads it with.
        request: what it answers.
        answered: what the host sent.
        facts: what the host said about the grant.
        check: raises once the lease of the client has ended.
        release: gives the place of the response back.
    """

    def __init__(
        self,
        dialect: LibraryAdapter,
        request: Any,
        answered: RpcReply,
        facts: Facts,
        check: Callable[[LibraryAdapter, Any], None],
        release: Callable[[], None],
    ) -> None:
        self.dialect = dialect
        self.request = request
        self.head = answered.value
        self._facts = facts
        self._check = check
        self._release = release
        self._closed = False
        self._content: bytes | None = None
        self._pipe: BodyStream | None = None
        if answered.descriptors:
            self._pipe = adopt(answered.descriptors[0])
        else:
            self._content = unpack(self.head["content"])

    async def next(self) -> bytes | None:
        """The next bytes, still encoded. Raises the dialect's errors."""
        if self._content is not None:
            content, self._content = self._content, None
            return content or None
        if self._pipe is None or self._closed:
            return None
        try:
            self._check(self.dialect, self.request)  # what is in the pipe already was sent before that
            return await self._pipe.receive(self._failed)
        except BaseException as error:
            await self.close()
            if isinstance(error, CutOff):
                raise self.dialect.library.ReadError(str(error), request=self.request) from error
            raise_as(self.dialect, self.request, error)
            raise

    async def drain(self) -> bytes:
        """The whole body, still encoded. Raises the dialect's errors."""
        parts = []
        try:
            self._check_declared()
            while (chunk := await self.next()) is not None:
                parts.append(chunk)
        finally:
            await self.close()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def close(self) -> None:
        """Gives the body up: what the host still has of it is not sent."""
        if not self._closed:
            self._closed = True
            self._content = None
            self._release()
            if self._pipe is not None:
                self._pipe.close()

    def _check_declared(self) -> None:
        for name, value in self.head["headers"]:
            if name.lower() == "content-length" and int(value) > self._facts.response_bytes:
                detail = "the response body is too large"
                error = LimitExceeded(
                    plugin=self._facts.plugin,
                    limit="response_bytes",
                    allowed=self._facts.response_bytes,
                    detail=detail,
                )
                raise_as(self.dialect, self.request, error)

    def _failed(self, fault: RemoteFault) -> Exception:
        return error_of(fault, self._facts.plugin)
