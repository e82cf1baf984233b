"""Raw connections of one plugin: decided, dialled, counted, and ended with the lease. Knows no isolation level."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from anyio.abc import ByteStream

from nyx_stream.capabilities.connect.stream import ConnectedStream
from nyx_stream.capabilities.dialling import Dialler, netloc
from nyx_stream.capabilities.http.errors import DialRefused
from nyx_stream.capabilities.lease import Lease
from nyx_stream.capabilities.network import Network
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked, SandboxDenied
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.policy.hosts import canonical_host

_PIECE = 64 * 1024
_DO_NOT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)


class Link:
    """One connection that is up. `end` is the host's way to end it, `release` that of whoever uses it."""

    __slots__ = ("_forget", "_release", "address", "error", "host", "on_end", "port", "sock")

    def __init__(
        self, sock: socket.socket, host: str, port: int, address: str, forget: Callable[["Link"], None]
    ) -> None:
        self.sock = sock
        self.host = host
        self.port = port
        self.address = address
        self.error: SandboxDenied | None = None
        self.on_end: Callable[[SandboxDenied], object] = _nothing
        self._forget = forget
        self._release: Callable[[], None] = _nothing

    def hold(self, lease: Lease) -> None:
        """Has the lease end this connection. Raises `Revoked` if it has ended already."""
        self._release = lease.hold(lambda: self.end(lease.error("connect", netloc(self.host, self.port))))

    def end(self, error: SandboxDenied) -> None:
        """Ends the connection for everybody who holds its socket, in whatever process."""
        if self.error is None:
            self.error = error
            self.on_end(error)
            with suppress(OSError):  # the peer may have ended it
                self.sock.shutdown(socket.SHUT_RDWR)
                # What had arrived could still be read after that; what arrives from now on is refused (RFC 1122,
                # 4.2.2.13). Whoever shares the socket may have made it a blocking one.
                while self.sock.recv(_PIECE, _DO_NOT_WAIT):
                    pass

    def release(self) -> None:
        """Gives up the connection; its socket is closed by its user."""
        self._release()
        self._forget(self)


class GuardedConnect:
    """`await connect(host, port)`: a TCP connection as an anyio byte stream.

    Args:
        guard: decides. Only a connect rule grants a connection: over it, anything can be said.
        lease: ends every connection when it is revoked.
        network: how the host reaches the network.
    """

    __slots__ = ("_dialler", "_dialling", "_guard", "_lease", "_links")

    def __init__(self, guard: SandboxGuard, lease: Lease, network: Network) -> None:
        self._guard = guard
        self._lease = lease
        self._dialler = Dialler(guard, network)
        self._dialling = 0
        self._links: set[Link] = set()

    async def __call__(self, host: str, port: int) -> ByteStream:
        """Connects to a host, at an address that was checked; see `open` for what it raises."""
        link = await self.open(host, port)
        return ConnectedStream(link.sock, lambda: link.error, link.release)

    async def open(self, host: str, port: int) -> Link:
        """Connects within `request_timeout` of the grant. The socket is the caller's to close, after `release`.

        Raises:
            NetworkDenied: no connect rule grants it, or the name leads to an address that is not granted. Audited.
            Revoked: the lease has ended.
            LimitExceeded: `connections` of the grant are up.
            OSError: the network's own, a `TimeoutError` among them.
        """
        self._lease.check("connect", f"{host}:{port}")
        decision = self._guard.decide_connect(host, port)
        if not decision.allowed:
            raise self._denied(host, port, f"{host}:{port}", decision)
        host = canonical_host(host)
        self._check_room()
        decision = decision.use()
        if not decision.allowed:
            raise self._denied(host, port, netloc(host, port), decision)
        self._dialling += 1
        try:
            async with asyncio.timeout(self._guard.limits.request_timeout):
                sock, address = await self._dialler.dial(host, port)
        except DialRefused as refused:
            target = f"{netloc(host, port)} at {refused.at}"
            raise self._denied(host, port, target, refused.decision) from refused
        finally:
            self._dialling -= 1
        link = Link(sock, host, port, address, self._links.discard)
        try:
            link.hold(self._lease)
        except BaseException:
            sock.close()
            raise
        self._links.add(link)
        return link

    def recheck(self) -> None:
        """Ends the connections that the policy in force grants no more."""
        for link in list(self._links):
            decision = self._guard.decide_connect(link.host, link.port)
            if decision.allowed:
                decision = self._guard.decide_addresses(link.host, link.port, [link.address])
            if not decision.allowed:
                target = netloc(link.host, link.port)
                self._guard.record("connect", "update", target, decision)
                link.end(self._guard.denial(Revoked, "connect", "connect", target, decision))

    def close(self) -> None:
        """Ends every connection."""
        decision = Decision(False, None, "the connect capability is closed")
        for link in list(self._links):
            link.end(self._guard.denial(Revoked, "connect", "connect", netloc(link.host, link.port), decision))
            link.sock.close()

    def _check_room(self) -> None:
        most = self._guard.limits.connections
        if self._dialling + len(self._links) >= most:
            detail = f"{most} connections are up"
            raise LimitExceeded(plugin=self._guard.plugin, limit="connections", allowed=most, detail=detail)

    def _denied(self, host: str, port: int, target: str, decision: Decision) -> NetworkDenied:
        self._guard.record("connect", "connect", target, decision)
        return self._guard.connect_error(host, port, decision)


def _nothing(*_: object) -> None:
    return
