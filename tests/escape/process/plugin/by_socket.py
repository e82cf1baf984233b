"""Attacks with the socket of a granted connection, and with the stream of a response body."""

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import asynccontextmanager

from table import attack

from nyx_core.linux.libc import syscall

_SIOCSIFFLAGS, _SIOCSPGRP = 0x8914, 0x8902
_MSG_FASTOPEN = 0x2000_0000
_SO_MARK, _SO_BINDTODEVICE = 36, 25
_HELLO = b"GET /until-close HTTP/1.1\r\nHost: granted.example\r\n\r\n"


@asynccontextmanager
async def connected(plugin):
    """The bare socket of a connection."""
    stream = await plugin.connect("granted.example", 80)
    try:
        yield stream._socket
    finally:
        await stream.aclose()


@asynccontextmanager
async def piped(plugin):
    """The bare socket of a response's body."""
    line = plugin._context.rpc.to("http")
    url, unlimited = "http://granted.example/slow", [None] * 4
    ask = {"method": "GET", "url": url, "headers": [], "timeout": unlimited, "whole_body": False}
    with socket.socket(fileno=(await line.ask("fetch", **ask)).descriptors[0]) as sock:
        yield sock


async def talk(plugin):
    """Sending and receiving works."""
    async with await plugin.connect("granted.example", 80) as stream:
        await stream.send(_HELLO)
        return (await stream.receive())[:12]


async def fetch(plugin):
    """A body arrives through its stream."""
    async with plugin.http.stream("GET", "http://granted.example/big") as reply:
        return len(await reply.aread())


@attack("Network", "seccomp", twin=talk)
async def reconnect_it(plugin):
    async with connected(plugin) as sock:
        sock.connect(("127.0.0.1", 9))


@attack("Network", "seccomp", twin=talk)
async def dissolve_it_first(plugin):
    async with connected(plugin) as sock:
        syscall("connect", sock.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16)


def _fast_open(sock, family):
    address = struct.pack("=H", family) + struct.pack("!H", 9) + socket.inet_aton("127.0.0.1") + bytes(8)
    name, data = ctypes.create_string_buffer(address, 16), ctypes.create_string_buffer(b"x", 1)
    vector = struct.pack("=QQ", ctypes.addressof(data), 1)
    vectors = ctypes.create_string_buffer(vector, 16)
    message = struct.pack("=QIxxxxQQQQIxxxx", ctypes.addressof(name), 16, ctypes.addressof(vectors), 1, 0, 0, 0)
    syscall("sendmsg", sock.fileno(), message, _MSG_FASTOPEN)


@attack("Network", "seccomp", twin=talk)
async def reconnect_it_by_fast_open(plugin):
    async with connected(plugin) as sock:
        _fast_open(sock, socket.AF_INET)


@attack("Network", "seccomp", twin=talk)
async def dissolve_it_by_fast_open(plugin):
    async with connected(plugin) as sock:
        _fast_open(sock, socket.AF_UNSPEC)


@attack("Network", "seccomp", twin=talk)
async def reconnect_it_by_fast_open_after_a_reset(plugin):
    async with connected(plugin) as sock:
        sock.setblocking(True)
        try:
            sock.sendall(_HELLO)
            while True:
                sock.recv(4096)
                sock.sendall(b"the peer has closed, so this is answered by a reset")
        except ConnectionError:
            pass
        for _ in range(2):
            try:
                _fast_open(sock, socket.AF_INET)
            except ConnectionError:
                continue
        _fast_open(sock, socket.AF_INET)


@attack("Network", "seccomp", twin=talk)
async def send_it_elsewhere(plugin):
    async with connected(plugin) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))


@attack("Network", "seccomp", twin=talk)
async def bind_it(plugin):
    async with connected(plugin) as sock:
        sock.bind(("127.0.0.1", 0))


@attack("Network", "seccomp", twin=talk)
async def listen_on_it(plugin):
    async with connected(plugin) as sock:
        sock.listen()


@attack("Network", "kernel", twin=talk)
async def accept_on_it(plugin):
    async with connected(plugin) as sock:
        sock.accept()


@attack("Network", "capabilities", twin=talk)
async def mark_its_packets(plugin):
    async with connected(plugin) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, 1)


@attack("Network", "capabilities", twin=talk)
async def change_an_interface_through_it(plugin):
    async with connected(plugin) as sock:
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, b"lo".ljust(16, b"\0") + struct.pack("=h", 0).ljust(24, b"\0"))


@attack("Kernel", "seccomp", twin=talk)
async def signal_the_host_as_its_owner(plugin):
    async with connected(plugin) as sock:
        fcntl.ioctl(sock.fileno(), _SIOCSPGRP, struct.pack("=i", os.getppid()))


@attack("Network", "seccomp", twin=fetch)
async def connect_a_pipe_elsewhere(plugin):
    async with piped(plugin) as sock:
        sock.connect("/run/systemd/journal/stdout")


@attack("Network", "seccomp", twin=fetch)
async def listen_on_a_pipe(plugin):
    async with piped(plugin) as sock:
        sock.listen()
