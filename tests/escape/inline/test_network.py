"""Plugin code that uses the network without `self.http` is refused before it sends a packet, and recorded."""

import asyncio
import socket

import pytest

from nyx_stream.errors import PluginCallError, TripwireDenied

ATTACKS = {
    "socket": ("socket.socket()", "socket.__new__"),
    "socket from a descriptor": ("socket.socket(fileno=0)", "socket.__new__"),
    "create_connection": ("socket.create_connection(('127.0.0.1', {port}))", "socket.getaddrinfo"),
    "getaddrinfo": ("socket.getaddrinfo('example.com', 80)", "socket.getaddrinfo"),
    "gethostbyname": ("socket.gethostbyname('example.com')", "socket.gethostbyname"),
    "asyncio.open_connection": ("await asyncio.open_connection('127.0.0.1', {port})", "socket.__new__"),
    "asyncio.start_server": ("(await asyncio.start_server(print, '127.0.0.1', 0)).sockets[0]", "socket.__new__"),
    "loop.getaddrinfo": (
        "await asyncio.get_running_loop().getaddrinfo('example.com', 80)",
        "socket.getaddrinfo",
    ),
    "urllib": ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}/')", "urllib.Request"),
    "http.client": (
        "import http.client\nhttp.client.HTTPConnection('127.0.0.1', {port}).connect()",
        "http.client.connect",
    ),
    "httpx": (
        "import httpx\nawait httpx.AsyncClient(trust_env=False, verify=False).get('http://127.0.0.1:{port}/')",
        "socket.__new__",
    ),
    "unix datagram": ("socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '/dev/log')", "socket.__new__"),
}


@pytest.fixture
def listener():
    """A listening socket of the host, which must get no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("name", ATTACKS)
async def test_using_the_network_is_refused_and_recorded(rogue, listener, name):
    """However plugin code uses the network, no connection arrives."""
    code, action = ATTACKS[name]
    # httpx makes an error of its own of the refusal; asyncio takes it for a family that is not there and binds nothing.
    raises = PluginCallError if name in ("httpx", "asyncio.start_server") else TripwireDenied
    await rogue.refused(code.format(port=listener.getsockname()[1]), "connect", action, raises=raises)
    with pytest.raises(BlockingIOError):
        listener.accept()


SOCKET_ATTACKS = {
    "connect": ("self.borrowed.connect(('127.0.0.1', {port}))", "socket.connect"),
    "connect_ex": ("self.borrowed.connect_ex(('127.0.0.1', {port}))", "socket.connect"),
    "bind": ("self.borrowed.bind(('127.0.0.1', 0))", "socket.bind"),
    "sendto": ("self.borrowed.sendto(b'x', ('127.0.0.1', {port}))", "socket.sendto"),
}


@pytest.mark.parametrize("name", SOCKET_ATTACKS)
async def test_using_a_socket_of_the_hosts_is_refused(rogue, listener, name):
    """A socket of the host that a plugin obtained can't be connected, bound or sent from by the plugin's code."""
    code, action = SOCKET_ATTACKS[name]
    with socket.socket() as borrowed:
        rogue.handle._record.run.backend._plugin.borrowed = borrowed
        event = await rogue.refused(code.format(port=listener.getsockname()[1]), "connect", action)
    assert "127.0.0.1" in event.target


async def test_a_socket_pair_is_allowed(rogue):
    """Two sockets that are only connected to each other are allowed."""
    code = "a, b = socket.socketpair()\nwith a, b:\n    a.send(b'x')\n    return b.recv(1)"
    assert await rogue.run(code) == "b'x'"
    assert not rogue.denied


async def test_the_host_connects_while_a_plugin_runs(rogue, listener):
    """The host's own connection succeeds at the same time."""
    running = asyncio.create_task(rogue.run("await asyncio.sleep(0.01)"))
    _, writer = await asyncio.open_connection(*listener.getsockname())
    writer.close()
    await writer.wait_closed()
    await running
    assert not rogue.denied
