"""Sockets of every family, and names. Twin: a pair of Unix sockets, and asyncio on it."""

import asyncio
import encodings.idna  # noqa: F401 loads native code, which is frozen when a name is looked up
import os
import socket
import struct
from contextlib import suppress
from typing import Any

from nyx_core.linux.libc import address_of, syscall
from nyx_core.linux.seccomp_rules import MSG_FASTOPEN
from tests.escape.kernel.attack import AttackList, Inherited, unix_address

AF_VSOCK, AF_PACKET, AF_NETLINK, AF_ALG = 40, 17, 16, 38


def asyncio_runs(_inherited: Any) -> None:
    """The loop, its default executor and a pair of sockets work."""

    async def work() -> int:
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.send(b"x")
            reader.recv(1)
        return await asyncio.to_thread(os.getpid)

    if asyncio.run(work()) != os.getpid():
        raise RuntimeError("the executor returned something else")


attacks = AttackList("Network", asyncio_runs)


@attacks.add("seccomp")
def tcp(_inherited: Any) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


@attacks.add("seccomp")
def tcp_by_call(_inherited: Any) -> None:
    os.close(syscall("socket", socket.AF_INET, socket.SOCK_STREAM, 0))


@attacks.add("seccomp")
def tcp_over_ipv6(_inherited: Any) -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()


@attacks.add("seccomp")
def udp(_inherited: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.sendto(b"query", ("127.0.0.1", 53))


@attacks.add("seccomp")
def udp_by_call(_inherited: Any) -> None:
    os.close(syscall("socket", socket.AF_INET, socket.SOCK_DGRAM, 0))


@attacks.add("seccomp", root=True)
def raw(_inherited: Any) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@attacks.add("seccomp")
def netlink(_inherited: Any) -> None:
    os.close(syscall("socket", AF_NETLINK, socket.SOCK_RAW, 0))


@attacks.add("seccomp", root=True)
def packet(_inherited: Any) -> None:
    os.close(syscall("socket", AF_PACKET, socket.SOCK_RAW, 0))


@attacks.add("seccomp")
def vsock(_inherited: Any) -> None:
    os.close(syscall("socket", AF_VSOCK, socket.SOCK_STREAM, 0))


def _listener() -> Inherited:
    """Two Unix servers that exist before: one with a path below the writable ones, one abstract."""
    servers = []
    for address in ("data/server", f"\0nyx-{os.getpid()}"):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(address)
        servers.append(server)
    return Inherited(servers)


@attacks.add("seccomp", setup=_listener)
def unix_socket_by_path(_inherited: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect("data/server")


@attacks.add("seccomp", setup=_listener)
def unix_socket_abstract(_inherited: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(f"\0nyx-{os.getpid()}")


@attacks.add("seccomp", setup=_listener)
def unix_datagram_pair_sent_elsewhere(_inherited: Any) -> None:
    one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"out", "data/server")


def _kept_datagram_pair() -> Inherited:
    _listener_objects.append(_listener())
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.dup2(one.fileno(), 9)
    return Inherited(9, (9,))


_listener_objects: list[object] = []


@attacks.add("seccomp", setup=_kept_datagram_pair)
def inherited_datagram_socket_sent_elsewhere(inherited: Any) -> None:
    address = unix_address(b"data/server")
    syscall("sendto", inherited.value, b"out", 3, 0, address, len(address))


@attacks.add("seccomp", setup=_kept_datagram_pair)
def inherited_datagram_socket_connected_elsewhere(inherited: Any) -> None:
    address = unix_address(b"data/server")
    syscall("connect", inherited.value, address, len(address))


def _kept_tcp() -> Inherited:
    sock = socket.socket()
    os.dup2(sock.fileno(), 9)
    return Inherited(9, (9,))


@attacks.add("seccomp", setup=_kept_tcp)
def bind_an_inherited_socket(inherited: Any) -> None:
    with socket.socket(fileno=inherited.value) as sock:
        sock.bind(("127.0.0.1", 0))


@attacks.add("seccomp", setup=_kept_tcp)
def listen_on_an_inherited_socket(inherited: Any) -> None:
    syscall("listen", inherited.value, 1)


def _kept_reset_tcp() -> Inherited:
    """A TCP socket that the kernel still considers connecting, although its peer has reset it."""
    peer, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(peer.getsockname())
    accepted, _ = peer.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    accepted.close()
    os.dup2(sock.fileno(), 9)
    return Inherited((9, other.getsockname()[1], other, peer), (9,))


@attacks.add("seccomp", setup=_kept_reset_tcp, may_fail_unconfined="net.ipv4.tcp_fastopen may be switched off")
def fast_open_an_inherited_socket(inherited: Any) -> None:
    descriptor, port, *_ = inherited.value
    name = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, b"\x7f\0\0\1")
    data = bytearray(b"x")
    vector = struct.pack("=QQ", address_of(data), 1)
    held = bytearray(name), bytearray(vector)
    message = struct.pack("=QQQQQQQ", address_of(held[0]), len(name), address_of(held[1]), 1, 0, 0, 0)
    for _ in range(2):
        with suppress(ConnectionError, BlockingIOError):
            syscall("sendmsg", descriptor, message, MSG_FASTOPEN)
    syscall("sendmsg", descriptor, message, MSG_FASTOPEN)


def _numeric(_inherited: Any) -> None:
    socket.getaddrinfo("127.0.0.1", 80, flags=socket.AI_NUMERICHOST)


@attacks.add("landlock", twin=_numeric, answers=("gaierror",))
def getaddrinfo(_inherited: Any) -> None:
    socket.getaddrinfo("localhost", 80)


CASES = attacks.cases()
