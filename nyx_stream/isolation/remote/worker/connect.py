"""Worker binding of the connect service: the host connects the socket and passes it."""

import errno
import socket

from pydantic import ValidationError

from nyx_stream.isolation.remote.wire.messages import CapabilityError, RemoteFault, error_of
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub

_CHUNK = 64 * 1024


class RemoteConnectService:
    """A `ConnectService` by RPC."""

    def __init__(self, stub: CapabilityStub) -> None:
        self._stub = stub

    async def connect(self, host: str, port: int) -> "RemoteConnection":
        try:
            reply = await self._stub.ask("open", host=host, port=port)
        except CapabilityError as error:
            if error.name == TimeoutError.__name__:
                raise TimeoutError(errno.ETIMEDOUT, "the connection took too long") from error
            raise
        sock, control = (socket.socket(fileno=descriptor) for descriptor in reply.descriptors)
        return RemoteConnection(sock, control, reply.value)


class RemoteConnection:
    """A `Connection` whose host reports over a control channel why it has ended it."""

    def __init__(self, sock: socket.socket, control: socket.socket, plugin: str) -> None:
        control.setblocking(False)
        self.socket = sock
        self._control = control
        self._plugin = plugin
        self._received = b""

    def error(self) -> Exception | None:
        try:
            while chunk := self._control.recv(_CHUNK):
                self._received += chunk
        except OSError:  # the host has sent nothing yet, or the channel is closed
            return None
        try:
            return error_of(RemoteFault.model_validate_json(self._received), self._plugin)
        except ValidationError:
            return ConnectionError("the host has closed the control channel of this connection")

    def release(self) -> None:
        self._control.close()
