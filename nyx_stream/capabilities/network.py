"""How the host reaches the network: looking names up, connecting, TLS trust.

Theory of operation
-------------------
A `Dialer` is the second decision of every connection. Its caller has decided that the host and port are granted. The
dialer looks the name up once, has the guard decide on all addresses of the answer, and connects to literals of that
answer only. A name whose answer changes between the check and the connection (DNS rebinding) gains nothing. Afterwards
the peer of the socket is compared with the addresses that were checked.

A host has one `NetworkBackend` for all its plugins, because making a TLS context takes 20-30 ms. A host that has its
own resolver or trust store subclasses or configures it. A test answers look-ups and redirects connections.
"""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence

from aiohappyeyeballs import AddrInfoType, start_connection

from nyx_stream.attribution import as_host
from nyx_stream.guard import Decision, SandboxGuard

MAX_ADDRESSES = 8
"""Addresses that are tried for one connection, however many the look-up returned."""

_DELAY = 0.25
"""Seconds before the next address is tried beside one that hasn't answered (RFC 8305, section 5)."""


class PeerMismatch(OSError):
    """The kernel connected the socket to another address than one that was checked."""


class DialRefused(Exception):
    """A host may not be connected to, or not at the addresses `at` that its name resolves to. Nothing was sent."""

    def __init__(self, decision: Decision, host: str, port: int, at: str) -> None:
        super().__init__(decision.reason)
        self.decision = decision
        self.host = host
        self.port = port
        self.at = at


class NetworkBackend:
    """The system's resolver, TCP sockets, and the certificates that httpx ships with.

    Args:
        trust: replaces the TLS client context. It is used for HTTP/1.1 only and must verify names.
    """

    def __init__(self, *, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust
        self._building = threading.Lock()
        if trust is not None:
            trust.set_alpn_protocols(["http/1.1"])

    async def resolve(self, host: str, port: int) -> list[str]:
        """Returns all addresses of a host name, in canonical form and the resolver's order (RFC 6724).

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        with as_host():
            rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        return list(dict.fromkeys(str(row[4][0]) for row in rows))

    async def dial(self, addresses: Sequence[str], port: int) -> tuple[socket.socket, str]:
        """Connects to the first of the addresses that answers, trying them as RFC 8305 (Happy Eyeballs) describes.

        Returns a non-blocking TCP socket, and the address that it is connected to. Raises OSError.
        """
        with as_host():
            sock = await start_connection(
                [_addr_info(address, port) for address in addresses],
                happy_eyeballs_delay=_DELAY,
                interleave=1,
                socket_factory=_new_socket,
            )
            try:
                return sock, _checked_peer(sock, addresses, port)
            except BaseException:
                sock.close()
                raise

    async def tls(self) -> ssl.SSLContext:
        """Returns the one TLS client context of this network, made on first use in a thread."""
        if self._trust is None:
            with as_host():
                await asyncio.to_thread(self._build_trust)
        if self._trust is None:
            raise ssl.SSLError("no TLS context could be made")
        return self._trust

    def _build_trust(self) -> None:
        with self._building:
            if self._trust is None:
                import httpx  # takes 100 ms, and most hosts that need no certificates never load it

                context = httpx.create_ssl_context(trust_env=False)
                context.set_alpn_protocols(["http/1.1"])
                self._trust = context


class Dialer:
    """Opens the connections of one plugin. Each has its own decision and its own look-up."""

    __slots__ = ("guard", "network")

    def __init__(self, guard: SandboxGuard, network: NetworkBackend) -> None:
        self.guard = guard
        self.network = network

    async def connect(self, host: str, port: int) -> socket.socket:
        """Returns a socket connected to an origin, if any rule allows a connection or request to it.

        Raises `DialRefused` or OSError.
        """
        decision = self.guard.judge_origin(host, port)
        if not decision.allowed:
            raise DialRefused(decision, host, port, host)
        sock, _ = await self.dial(host, port)
        return sock

    async def dial(self, host: str, port: int) -> tuple[socket.socket, str]:
        """Connects to an address of `host` that the guard allows; returns the socket and that address. Audited.

        The caller has decided that `host` may be connected to. Raises `DialRefused` or OSError.
        """
        addresses = [host] if _is_literal(host) else await self.network.resolve(host, port)
        if not addresses:
            raise OSError(f"no address for {host}")
        decision = self.guard.decide_addresses(host, port, addresses)
        if not decision.allowed:
            raise DialRefused(decision, host, port, ", ".join(addresses))
        sock, address = await self.network.dial(_bounded(addresses), port)
        self.guard.record("connect", "connect", f"{netloc(host, port)} at {address}", decision)
        return sock, address


def netloc(host: str, port: int) -> str:
    """Returns `host:port`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bounded(addresses: Sequence[str]) -> list[str]:
    """Returns at most `MAX_ADDRESSES` distinct addresses, half of them of each family if there are as many."""
    distinct = list(dict.fromkeys(addresses))
    six = [address for address in distinct if ":" in address]
    four = [address for address in distinct if ":" not in address]
    half = MAX_ADDRESSES // 2
    kept = {*six[: max(half, MAX_ADDRESSES - len(four))], *four[: max(half, MAX_ADDRESSES - len(six))]}
    return [address for address in distinct if address in kept]


def _addr_info(address: str, port: int) -> AddrInfoType:
    sockaddr, family = ((address, port, 0, 0), socket.AF_INET6) if ":" in address else ((address, port), socket.AF_INET)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr


def _new_socket(info: AddrInfoType) -> socket.socket:
    sock = socket.socket(info[0], info[1], info[2])
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _checked_peer(sock: socket.socket, addresses: Sequence[str], port: int) -> str:
    """Returns the one of `addresses` that the socket is connected to, or raises `PeerMismatch`."""
    peer = sock.getpeername()
    # A zone (`%eth0`) is local to this machine and not part of the address that was checked.
    reached = ipaddress.ip_address(peer[0].partition("%")[0])
    for address in addresses:
        if ipaddress.ip_address(address) == reached and peer[1] == port:
            return address
    raise PeerMismatch(f"connected to {netloc(peer[0], peer[1])} instead of {', '.join(addresses)}, port {port}")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
