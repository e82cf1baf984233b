"""A body between host and worker: complete, truncated or failed, with arbitrary bytes."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.isolation.remote.wire.body_stream import MAX_CHUNK, BodyStream, CutOff, make_pipe
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import CapabilityError, RemoteFault, error_of


def raised(fault: RemoteFault) -> Exception:
    return error_of(fault, "p")


def ends() -> tuple[BodyStream, BodyStream]:
    ours, theirs = make_pipe()
    return ours, BodyStream(socket.socket(fileno=theirs))


async def received(pipe: BodyStream) -> bytes:
    """Reads to the end; the pipe is closed in any case."""
    parts = []
    try:
        while (part := await pipe.receive(raised)) is not None:
            parts.append(part)
    finally:
        pipe.close()
    return b"".join(parts)


@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [MAX_CHUNK], [MAX_CHUNK + 1], [3 * MAX_CHUNK], [1, 0, 70_000, 3, 2_000_000, 1]]
)
async def test_a_body_arrives_as_it_was_sent(sizes):
    """Whatever its pieces are; the receiver says when it may begin."""
    ours, theirs = ends()
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    async def send() -> None:
        await ours.started()
        for piece in pieces:
            await ours.send(piece)
        await ours.end()

    sending = asyncio.ensure_future(send())
    await theirs.go()
    assert await received(theirs) == b"".join(pieces)
    await sending


async def test_what_went_wrong_arrives_behind_what_was_sent():
    """The error is the sender's, and comes after every byte."""
    ours, theirs = ends()
    await ours.send(b"first")
    await ours.end(RemoteFault(reason="other", name="ReadTimeout", message="timed out"))
    assert await theirs.receive(raised) == b"first"
    with pytest.raises(CapabilityError, match="ReadTimeout: timed out"):
        await received(theirs)


async def test_what_went_wrong_arrives_whole_though_it_cut_a_chunk():
    """A sender that is interrupted while a chunk is half sent sends the rest of it first: bytes are never taken for
    an error, nor an error for bytes."""
    ours, theirs = ends()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            sent += MAX_CHUNK
            await ours.send(bytes(MAX_CHUNK))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(), 0.2)
    ending = asyncio.ensure_future(ours.end(RemoteFault(reason="other", name="ReadTimeout", message="timed out")))
    got = [await theirs.receive(raised)]
    while sum(map(len, got)) < sent:
        got.append(await theirs.receive(raised))
    assert not any(map(any, got))
    with pytest.raises(CapabilityError, match="ReadTimeout: timed out"):
        await theirs.receive(raised)
    await ending
    theirs.close()


async def test_a_body_without_its_end_was_cut():
    """Between chunks, within one, within its length: never taken for whole."""
    for sent in (b"", b"\0\0", b"\0\0\0\x05abc", b"\0\0\0\x03abc"):
        ours, theirs = ends()
        ours.socket.sendall(sent)
        ours.close()
        with pytest.raises(CutOff):
            await received(theirs)


async def test_a_receiver_that_is_gone_is_an_os_error():
    """Before it wanted anything, and after."""
    ours, theirs = ends()
    theirs.close()
    with pytest.raises(CutOff):
        await ours.started()
    with pytest.raises(BrokenPipeError):
        await ours.send(b"x")
    ours.close()


@given(st.lists(st.binary(max_size=200), max_size=5), st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_body_or_a_clean_end(chunks, rest, framed):
    """Chunks that are right are received; then come the end, a fault, or a cut."""
    right = [chunk for chunk in chunks if chunk] if framed else []
    data = b"".join(len(chunk).to_bytes(4, "big") + chunk for chunk in right) + rest

    async def exchange() -> bytes | None:
        ours, theirs = ends()
        ours.socket.sendall(data)
        ours.close()
        got = []
        try:
            while (part := await theirs.receive(raised)) is not None:
                got.append(part)
        except (CutOff, ProtocolFault, CapabilityError):
            pass
        finally:
            theirs.close()
        return b"".join(got)

    assert asyncio.run(exchange()).startswith(b"".join(right))
