"""The connect service: decides, dials, counts the connections, and ends them with the lease."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from nyx_stream.capabilities.lease import Lease
from nyx_stream.capabilities.network import Dialer, DialRefused, NetworkBackend, netloc
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked, SandboxDenied
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.policy.hosts import canonical_host

_CHUNK = 64 * 1024
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)

OnEnd: TypeAlias = Callable[[SandboxDenied], object]


class LocalConnection:
    """An open connection to the dialled `address` of `host`, as `stream.Connection`."""

    __slots__ = ("_error", "address", "host", "on_end", "on_release", "port", "socket")

    def __init__(self, sock: socket.socket, host: str, port: int, address: str) -> None:
        self.socket = sock
        self.host = host
        self.port = port
        self.address = address
        self.on_end: OnEnd | None = None
        """Called with the error when the host ends the connection."""
        self.on_release: Callable[[], object] | None = None
        self._error: SandboxDenied | None = None

    def error(self) -> SandboxDenied | None:
        return self._error

    def end(self, error: SandboxDenied) -> None:
        """Ends the connection in every process that holds its socket."""
        if self._error is not None:
            return
        self._error = error
        if self.on_end is not None:
            self.on_end(error)
        with suppress(OSError):  # the peer may have closed the connection
            self.socket.shutdown(socket.SHUT_RDWR)
            # Data that arrived before could still be read after the shutdown; what arrives from now on is refused
            # (RFC 1122, 4.2.2.13). A process that shares the socket may have made it a blocking one.
            while self.socket.recv(_CHUNK, _DONT_WAIT):
                pass

    def release(self) -> None:
        if self.on_release is not None:
            self.on_release()


class LocalConnectService:
    """A `ConnectService` in this process.

    Only a connect rule grants a connection, because any protocol can be spoken over it. The end of the lease ends every
    connection.
    """

    __slots__ = ("_connections", "_dialer", "_guard", "_lease", "_pending")

    def __init__(self, guard: SandboxGuard, lease: Lease, network: NetworkBackend) -> None:
        self._guard = guard
        self._lease = lease
        self._dialer = Dialer(guard, network)
        self._connections: set[LocalConnection] = set()
        self._pending = 0

    async def connect(self, host: str, port: int) -> LocalConnection:
        self._lease.check("connect", f"{host}:{port}")
        decision = self._guard.decide_connect(host, port)
        if not decision.allowed:
            raise self._denied(host, port, f"{host}:{port}", decision)
        host = canonical_host(host)
        limit = self._guard.limits.connections
        if self._pending + len(self._connections) >= limit:
            detail = f"{limit} connections are open"
            raise LimitExceeded(plugin=self._guard.plugin, limit="connections", allowed=limit, detail=detail)
        decision = decision.use()
        if not decision.allowed:
            raise self._denied(host, port, netloc(host, port), decision)
        self._pending += 1
        try:
            async with asyncio.timeout(self._guard.limits.request_timeout):
                sock, address = await self._dialer.dial(host, port)
        except DialRefused as refused:
            target = f"{netloc(host, port)} at {refused.at}"
            raise self._denied(host, port, target, refused.decision) from refused
        finally:
            self._pending -= 1
        connection = LocalConnection(sock, host, port, address)
        try:
            release = self._lease.hold(lambda: connection.end(self._lease.error("connect", netloc(host, port))))
        except BaseException:
            sock.close()
            raise

        def forget() -> None:
            release()
            self._connections.discard(connection)

        connection.on_release = forget
        self._connections.add(connection)
        return connection

    def recheck(self) -> None:
        """Ends the connections that the policy in force doesn't grant any more."""
        for connection in list(self._connections):
            decision = self._guard.decide_connect(connection.host, connection.port)
            if decision.allowed:
                decision = self._guard.decide_addresses(connection.host, connection.port, [connection.address])
            if not decision.allowed:
                target = netloc(connection.host, connection.port)
                self._guard.record("connect", "update", target, decision)
                self._end(connection, decision)

    async def aclose(self) -> None:
        for connection in list(self._connections):
            self._end(connection, Decision(False, None, "the connect capability is closed"))
            connection.socket.close()

    def _end(self, connection: LocalConnection, decision: Decision) -> None:
        target = netloc(connection.host, connection.port)
        connection.end(self._guard.denial(Revoked, "connect", "connect", target, decision))

    def _denied(self, host: str, port: int, target: str, decision: Decision) -> NetworkDenied:
        self._guard.record("connect", "connect", target, decision)
        return self._guard.connect_error(host, port, decision)
