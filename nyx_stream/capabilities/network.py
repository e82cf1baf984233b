"""How the host reaches the network: look-up, dial, trust. Knows no policy; what it may dial was decided before.

A host has one `Network` for all its plugins, so that there is one TLS context (making one takes 20-30 ms). A host with
a resolver or a trust store of its own subclasses or configures it; a test answers look-ups and redirects dials.
"""

import asyncio
import ipaddress
import socket
import ssl
import threading

from nyx_stream.attribution import as_host


class PeerMismatch(OSError):
    """The kernel connected the socket to another address than the one that was checked."""


class Network:
    """The default way out: the system's resolver, TCP sockets, the certificates that httpx ships with.

    `trust` replaces the TLS client context. It is used for HTTP/1.1 only and must verify names.
    """

    def __init__(self, *, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust
        self._building = threading.Lock()
        if trust is not None:
            trust.set_alpn_protocols(["http/1.1"])

    async def resolve(self, host: str, port: int) -> list[str]:
        """All addresses of a host name, canonical text, in the resolver's order (RFC 6724). Raises OSError."""
        loop = asyncio.get_running_loop()
        with as_host():
            rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        return list(dict.fromkeys(str(row[4][0]) for row in rows))

    async def dial(self, address: str, port: int) -> socket.socket:
        """A non-blocking TCP socket connected to exactly that address. Raises OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with as_host():
            sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self.connect(sock, address, port)
                check_peer(sock, address, port)
            except BaseException:
                sock.close()
                raise
        return sock

    async def connect(self, sock: socket.socket, address: str, port: int) -> None:
        """Connects `sock`; `dial` compares the peer afterwards. Raises OSError."""
        await asyncio.get_running_loop().sock_connect(sock, (address, port))

    async def tls(self) -> ssl.SSLContext:
        """The one TLS client context of this network, made on first use in a thread."""
        if self._trust is None:
            with as_host():
                await asyncio.to_thread(self._build_trust)
        if self._trust is None:
            raise ssl.SSLError("no TLS context could be made")
        return self._trust

    def _build_trust(self) -> None:
        with self._building:
            if self._trust is None:
                import httpx  # 100 ms, and most hosts that need no certificates never load it

                context = httpx.create_ssl_context(trust_env=False)
                context.set_alpn_protocols(["http/1.1"])
                self._trust = context


def check_peer(sock: socket.socket, address: str, port: int) -> None:
    """Raises `PeerMismatch` unless `sock` is connected to `address` and `port`."""
    peer = sock.getpeername()
    # A zone (`%eth0`) is local to this machine and no part of the address that was checked.
    if ipaddress.ip_address(peer[0].partition("%")[0]) != ipaddress.ip_address(address) or peer[1] != port:
        raise PeerMismatch(f"connected to {peer[0]}:{peer[1]} instead of {address}:{port}")
