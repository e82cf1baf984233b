"""The second gate: may this origin be dialled, at which addresses, and is the peer the one that was checked.

Resolves once per connection and dials only literals of that one answer, so that a name which changes its mind
between the check and the connection (DNS rebinding) gains nothing. Knows nothing of requests.
"""

import ipaddress
import socket
import ssl

from nyx_stream.capabilities.happy_eyeballs import first_connected
from nyx_stream.capabilities.network import Network
from nyx_stream.guard import Decision, SandboxGuard


class DialRefused(Exception):
    """An origin may not be dialled, or not at the addresses `at` that its name resolves to. It saw no packet."""

    def __init__(self, decision: Decision, host: str, port: int, at: str) -> None:
        super().__init__(decision.reason)
        self.decision = decision
        self.host = host
        self.port = port
        self.at = at


class Dialler:
    """Opens connections for one plugin, each after its own decision and its own look-up."""

    __slots__ = ("_network", "guard")

    def __init__(self, guard: SandboxGuard, network: Network) -> None:
        self.guard = guard
        self._network = network

    async def connect(self, host: str, port: int) -> socket.socket:
        """A socket connected to the origin, which some rule must allow to dial. Raises `DialRefused` or OSError."""
        decision = self.guard.judge_origin(host, port)
        if not decision.allowed:
            raise DialRefused(decision, host, port, host)
        sock, _ = await self.dial(host, port)
        return sock

    async def tls(self) -> ssl.SSLContext:
        """The TLS client context of the host's network."""
        return await self._network.tls()

    async def dial(self, host: str, port: int) -> tuple[socket.socket, str]:
        """A socket connected to an address of `host` that passed, and that address. Audited.

        That `host` may be dialled at all is decided before.

        Raises `DialRefused` or OSError.
        """
        addresses = [host] if _is_literal(host) else await self._network.resolve(host, port)
        if not addresses:
            raise OSError(f"no address for {host}")
        decision = self.guard.decide_addresses(host, port, addresses)
        if not decision.allowed:
            raise DialRefused(decision, host, port, ", ".join(addresses))
        sock, address = await first_connected(self._network.dial, addresses, port)
        self.guard.record("connect", "connect", f"{netloc(host, port)} at {address}", decision)
        return sock, address


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def netloc(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
