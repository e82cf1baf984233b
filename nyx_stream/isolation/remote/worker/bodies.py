"""Worker side of bodies: sending one along with a request, and the descriptors of answers. Decides nothing."""

import asyncio
import socket
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, nullcontext, suppress
from types import AsyncGeneratorType

from pydantic import JsonValue

from nyx_stream.isolation.remote.wire.body_stream import BodyStream
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub, RpcReply


def adopt(descriptor: int) -> BodyStream:
    """Returns the pipe of a descriptor that came with an answer."""
    return BodyStream(socket.socket(fileno=descriptor))


async def whole(data: bytes) -> AsyncIterator[bytes]:
    """Yields the one chunk of a body that is there already."""
    yield data


async def ask_with_body(
    line: CapabilityStub, action: str, body: AsyncIterable[bytes], **arguments: JsonValue
) -> RpcReply:
    """Asks the host to do something that takes a body; the body runs in the caller's task, once the host wants it.

    Raises as `CapabilityStub.ask`, and what the body raises: the request is then cancelled.
    """
    announced = await line.ask("announce")
    pipe = adopt(announced.descriptors[0])
    asking = asyncio.get_running_loop().create_task(line.ask(action, body=announced.value, **arguments))
    try:
        await _send(pipe, body)
        return await asking
    except BaseException:
        asking.cancel()
        with suppress(BaseException):
            _drop(await asking)
        raise
    finally:
        pipe.close()


async def _send(pipe: BodyStream, body: AsyncIterable[bytes]) -> None:
    # The host closes its end when it wants no more; its answer says why.
    try:
        await pipe.started()
    except OSError:
        return
    async with aclosing(body) if isinstance(body, AsyncGeneratorType) else nullcontext():
        async for chunk in body:
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise TypeError(f"a request body must yield bytes, not {type(chunk).__name__}")
            try:
                await pipe.send(bytes(chunk))
            except OSError:
                return
    with suppress(OSError):
        await pipe.end()


def _drop(answered: RpcReply) -> None:
    for descriptor in answered.descriptors:
        socket.socket(fileno=descriptor).close()
