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
from tests.escape.kernel.room import Book, Kept, unix_address

AF_VSOCK, AF_PACKET, AF_NETLINK, AF_ALG = 40, 17, 16, 38


def asyncio_runs(_had: Any) -> None:
    """The loop, its default executor and a pair of sockets work."""

    async def work() -> int:
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.send(b"x")
            reader.recv(1)
        return await asyncio.to_thread(os.getpid)

    if asyncio.run(work()) != os.getpid():
        raise RuntimeError("the executor answered something else")


book = Book("Network", asyncio_runs)


@book.attack("seccomp")
def tcp(_had: Any) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


@book.attack("seccomp")
def tcp_by_call(_had: Any) -> None:
    os.close(syscall("socket", socket.AF_INET, socket.SOCK_STREAM, 0))


@book.attack("seccomp")
def tcp_over_ipv6(_had: Any) -> None:
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()


@book.attack("seccomp")
def udp(_had: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        dns.sendto(b"query", ("127.0.0.1", 53))


@book.attack("seccomp")
def udp_by_call(_had: Any) -> None:
    os.close(syscall("socket", socket.AF_INET, socket.SOCK_DGRAM, 0))


@book.attack("seccomp", root=True)
def raw(_had: Any) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


@book.attack("seccomp")
def netlink(_had: Any) -> None:
    os.close(syscall("socket", AF_NETLINK, socket.SOCK_RAW, 0))


@book.attack("seccomp", root=True)
def packet(_had: Any) -> None:
    os.close(syscall("socket", AF_PACKET, socket.SOCK_RAW, 0))


@book.attack("seccomp")
def vsock(_had: Any) -> None:
    os.close(syscall("socket", AF_VSOCK, socket.SOCK_STREAM, 0))


def _listener() -> Kept:
    """Two Unix servers that exist before: one with a path, inside the writable paths even, one abstract."""
    servers = []
    for address in ("data/server", f"\0nyx-{os.getpid()}"):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(address)
        servers.append(server)
    return Kept(servers)


@book.attack("seccomp", before=_listener)
def unix_socket_by_path(_had: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect("data/server")


@book.attack("seccomp", before=_listener)
def unix_socket_abstract(_had: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(f"\0nyx-{os.getpid()}")


@book.attack("seccomp", before=_listener)
def unix_datagram_pair_sent_elsewhere(_had: Any) -> None:
    one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"out", "data/server")


def _kept_datagram_pair() -> Kept:
    _listener_objects.append(_listener())
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.dup2(one.fileno(), 9)
    return Kept(9, (9,))


_listener_objects: list[object] = []


@book.attack("seccomp", before=_kept_datagram_pair)
def inherited_datagram_socket_sent_elsewhere(had: Any) -> None:
    address = unix_address(b"data/server")
    syscall("sendto", had.value, b"out", 3, 0, address, len(address))


@book.attack("seccomp", before=_kept_datagram_pair)
def inherited_datagram_socket_connected_elsewhere(had: Any) -> None:
    address = unix_address(b"data/server")
    syscall("connect", had.value, address, len(address))


def _kept_tcp() -> Kept:
    sock = socket.socket()
    os.dup2(sock.fileno(), 9)
    return Kept(9, (9,))


@book.attack("seccomp", before=_kept_tcp)
def bind_an_inherited_socket(had: Any) -> None:
    with socket.socket(fileno=had.value) as inherited:
        inherited.bind(("127.0.0.1", 0))


@book.attack("seccomp", before=_kept_tcp)
def listen_on_an_inherited_socket(had: Any) -> None:
    syscall("listen", had.value, 1)


def _kept_reset_tcp() -> Kept:
    """A TCP socket that the kernel counts as connecting still, though its peer was there and has reset it."""
    peer, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(peer.getsockname())
    accepted, _ = peer.accept()
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    accepted.close()
    os.dup2(sock.fileno(), 9)
    return Kept((9, other.getsockname()[1], other, peer), (9,))


@book.attack("seccomp", before=_kept_reset_tcp, free="net.ipv4.tcp_fastopen may be switched off")
def fast_open_an_inherited_socket(had: Any) -> None:
    descriptor, port, *_ = had.value
    name = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, b"\x7f\0\0\1")
    data = bytearray(b"x")
    vector = struct.pack("=QQ", address_of(data), 1)
    held = bytearray(name), bytearray(vector)
    message = struct.pack("=QQQQQQQ", address_of(held[0]), len(name), address_of(held[1]), 1, 0, 0, 0)
    for _ in range(2):
        with suppress(ConnectionError, BlockingIOError):
            syscall("sendmsg", descriptor, message, MSG_FASTOPEN)
    syscall("sendmsg", descriptor, message, MSG_FASTOPEN)


def _numeric(_had: Any) -> None:
    socket.getaddrinfo("127.0.0.1", 80, flags=socket.AI_NUMERICHOST)


@book.attack("landlock", twin=_numeric, answers=("gaierror",))
def getaddrinfo(_had: Any) -> None:
    socket.getaddrinfo("localhost", 80)


CASES = book.cases()
