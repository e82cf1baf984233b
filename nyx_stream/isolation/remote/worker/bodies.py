"""Worker side of bodies: sends the body of a request, and takes over the descriptors of answers."""

import asyncio
import socket
from collections.abc import AsyncIterable
from contextlib import aclosing, nullcontext, suppress
from types import AsyncGeneratorType

from pydantic import JsonValue

from nyx_stream.isolation.remote.wire.body_stream import BodyStream
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub, RpcReply


def adopt(descriptor: int) -> BodyStream:
    """Returns the pipe of a descriptor that came with an answer."""
    return BodyStream(socket.socket(fileno=descriptor))


async def ask_with_body(
    stub: CapabilityStub, action: str, body: bytes | AsyncIterable[bytes], **arguments: JsonValue
) -> RpcReply:
    """Asks the host to do something that takes a body. The body is read in the caller's task, once the host wants it.

    Raises as `CapabilityStub.ask`, and what the body raises: the request is then cancelled.
    """
    announced = await stub.ask("announce")
    pipe = adopt(announced.descriptors[0])
    asking = asyncio.get_running_loop().create_task(stub.ask(action, body=announced.value, **arguments))
    try:
        await _send(pipe, body)
        return await asking
    except BaseException:
        asking.cancel()
        with suppress(BaseException):
            for descriptor in (await asking).descriptors:
                socket.socket(fileno=descriptor).close()
        raise
    finally:
        pipe.close()


async def _send(pipe: BodyStream, body: bytes | AsyncIterable[bytes]) -> None:
    # The host closes its end when it wants no more; its answer says why.
    try:
        await pipe.started()
        if isinstance(body, bytes):
            await pipe.send(body)
            await pipe.end()
            return
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
