"""Worker side of `self.connect`: the stream of level `inline`, on the socket that the host connected."""

import errno
import socket
from collections.abc import Awaitable, Callable

from anyio.abc import ByteStream
from pydantic import ValidationError

from nyx_stream.capabilities.connect.stream import ConnectedStream
from nyx_stream.isolation.remote.wire.messages import CapabilityError, RemoteFault, error_of
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub

_READ = 64 * 1024


def connect(line: CapabilityStub) -> Callable[[str, int], Awaitable[ByteStream]]:
    """A `ProxyFactory`."""

    async def connect(host: str, port: int) -> ByteStream:
        try:
            answered = await line.ask("open", host=host, port=port)
        except CapabilityError as error:
            if error.name == TimeoutError.__name__:
                raise TimeoutError(errno.ETIMEDOUT, "the connection took too long") from error
            raise
        sock, lifeline = (socket.socket(fileno=descriptor) for descriptor in answered.descriptors)
        lifeline.setblocking(False)
        return ConnectedStream(sock, _Lifeline(lifeline, answered.value), lifeline.close)

    return connect


class _Lifeline:
    """Says why the host ended the connection. Calling it is cheap while it did not."""

    def __init__(self, sock: socket.socket, plugin: str) -> None:
        self._socket = sock
        self._plugin = plugin
        self._told = b""

    def __call__(self) -> Exception | None:
        try:
            while piece := self._socket.recv(_READ):
                self._told += piece
        except OSError:  # nothing was said yet, or the lifeline is closed
            return None
        try:
            return error_of(RemoteFault.model_validate_json(self._told), self._plugin)
        except ValidationError:
            return ConnectionError("the host is gone")
