"""The conformance cases of `self.connect`."""

import asyncio

import anyio
from anyio.abc import ByteStream, SocketAttribute
from claims import refused

from nyx_stream.errors import LimitExceeded, NetworkDenied

HELLO = b"GET /until-close HTTP/1.1\r\nHost: granted.example\r\n\r\n"


async def it_is_a_byte_stream(plugin):
    """Bytes flow both ways, by name and by address, and the stream ends when the peer closes."""
    found = []
    for host in ("granted.example", "127.0.0.1", "GRANTED.example."):
        async with await plugin.connect(host, 80) as stream:
            assert isinstance(stream, ByteStream)
            await stream.send(HELLO)
            reply = b""
            async for chunk in stream:
                reply += chunk
            found.append([reply.decode(), stream.extra(SocketAttribute.remote_address)[0]])
    return found


async def large_amounts_flow(plugin):
    """More than the buffers hold, in both directions at once."""
    size = 1_500_000
    head = b"POST /echo-once HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    async with await plugin.connect("granted.example", 80) as stream:
        await stream.send(head + bytes(size))
        reply = b"".join([chunk async for chunk in stream])
    return len(reply) - reply.index(b"\r\n\r\n")


async def ends_are_told_apart(plugin):
    """Closed here, closed by the peer, in use by another task."""
    found = []
    stream = await plugin.connect("granted.example", 80)
    waiting = asyncio.ensure_future(stream.receive())
    await asyncio.wait((waiting,), timeout=0.01)
    found.append(await refused(stream.receive(), anyio.BusyResourceError))
    await stream.aclose()
    found.append(await refused(waiting, anyio.ClosedResourceError))
    found.append(await refused(stream.receive(), anyio.ClosedResourceError))
    found.append(await refused(stream.send(b"x"), anyio.ClosedResourceError))
    await stream.aclose()
    stream = await plugin.connect("granted.example", 80)
    await stream.send(HELLO)
    await stream.send_eof()
    async for _ in stream:
        pass
    found.append(await refused(stream.receive(), anyio.EndOfStream))
    await stream.aclose()
    return found


async def what_is_not_granted_is_denied(plugin):
    """A host, a port, an address, a name with a private address; a request rule grants no connection."""
    found = []
    for host, port in (
        ("nowhere.example", 80),
        ("denied.example", 80),
        ("pages.example", 80),
        ("inside.example", 80),
        ("10.0.0.1", 80),
        ("2130706433", 80),
        ("::1", 80),
        ("granted.example", 65616),
        ("granted.example", 0),
        ("granted.example\0", 80),
    ):
        found.append(await refused(plugin.connect(host, port), NetworkDenied))
    return found


async def faults_of_the_network_are_os_errors(plugin):
    """A port where no server listens."""
    return await refused(plugin.connect("closed.example", 80), OSError)


async def connections_are_counted(plugin):
    """`connections` of the grant can be open at once; closing one allows another."""
    streams = [await plugin.connect("granted.example", 80) for _ in range(4)]
    found = await refused(plugin.connect("granted.example", 80), LimitExceeded)
    for stream in streams:
        await stream.aclose()
    async with asyncio.timeout(10):
        while True:
            try:
                await (await plugin.connect("granted.example", 80)).aclose()
                return found
            except LimitExceeded:  # the host has not been notified of the closing yet
                await asyncio.sleep(0)
