"""Worker binding of the files service: asks the host, which opens the files and passes the descriptors."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial

from nyx_stream.capabilities.files.service import FileLimits, OpenMode, read_descriptor
from nyx_stream.errors import Revoked
from nyx_stream.isolation.remote.wire.messages import (
    MAX_INLINE,
    MAX_PASSED_DESCRIPTORS,
    error_of,
    pack,
    pack_path,
    unpack,
)
from nyx_stream.isolation.remote.worker.bodies import adopt, ask_with_body
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub
from nyx_stream.policy.limits import Term

_MAX_PASSING = MAX_PASSED_DESCRIPTORS // 2
"""Descriptors of `read_file`, `write_file` and `list_directory` that may be in use at once, beside open files."""


class _PluginState:
    """What all file services of one worker share, the narrowed ones too."""

    def __init__(self) -> None:
        self.passing = asyncio.Semaphore(_MAX_PASSING)
        self.limits: FileLimits | None = None


class RemoteFileService:
    """A `FileService` by RPC. Its errors have the host's text.

    It enforces nothing: the host has checked every descriptor that it passes. When the host reports the end of the
    lease, the callback of `on_end` closes the open files here.
    """

    __slots__ = ("__weakref__", "_on_end", "_parent", "_revoked", "_state", "_stub")

    def __init__(self, stub: CapabilityStub, parent: "RemoteFileService | None" = None) -> None:
        self._stub = stub
        self._parent = parent  # the host ends a narrowed capability, and those below it, when its stub is gone
        self._state: _PluginState = _PluginState() if parent is None else parent._state
        self._revoked: Revoked | None = None
        self._on_end: Callable[[Revoked], object] | None = None
        stub.on_end(self._lease_ended)

    async def limits(self) -> FileLimits:
        if self._state.limits is None:
            self._state.limits = FileLimits(*(await self._stub.ask("limits")).value)
        return self._state.limits

    async def open(self, path: str, mode: OpenMode) -> int:
        reply = await self._stub.ask("open", path=pack_path(path), mode=mode)
        self._state.limits = FileLimits(*reply.value)
        descriptor = reply.descriptors[0]
        if self._revoked is not None:
            os.close(descriptor)
            raise copy(self._revoked)
        return descriptor

    async def read_file(self, path: str) -> bytes:
        async with self._state.passing:
            descriptor = await self.open(path, "rb")
            limits = await self.limits()
            try:
                if os.fstat(descriptor).st_size <= MAX_INLINE:
                    return read_descriptor(descriptor, limits.read_bytes, limits.plugin)
                reading = asyncio.to_thread(_read_and_close, os.dup(descriptor), limits)
                content = await asyncio.shield(reading)
            finally:
                os.close(descriptor)
            if self._revoked is not None:
                raise copy(self._revoked)
            return content

    async def write_file(self, path: str, content: bytes) -> None:
        if len(content) <= MAX_INLINE:
            await self._stub.ask("write", path=pack_path(path), content=pack(content))
        else:
            async with self._state.passing:
                await ask_with_body(self._stub, "write", content, path=pack_path(path))

    async def stat(self, path: str) -> os.stat_result:
        fields, others = (await self._stub.ask("stat", path=pack_path(path))).value
        return os.stat_result(fields, others)

    async def list_directory(self, path: str) -> list[str]:
        async with self._state.passing:
            reply = await self._stub.ask("list", path=pack_path(path))
            names = await self._receive(reply.descriptors[0]) if reply.descriptors else unpack(reply.value)
            return [os.fsdecode(name) for name in names.split(b"\0") if name]

    async def mkdir(self, path: str, mode: int, parents: bool, exist_ok: bool) -> None:
        await self._stub.ask("mkdir", path=pack_path(path), mode=mode, parents=parents, exist_ok=exist_ok)

    async def rename(self, source: str, target: str) -> None:
        await self._stub.ask("rename", source=pack_path(source), target=pack_path(target))

    async def remove(self, path: str, tree: bool) -> None:
        await self._stub.ask("remove", path=pack_path(path), tree=tree)

    def narrow(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> "RemoteFileService":
        return RemoteFileService(self._stub.narrow([pack_path(prefix) for prefix in prefixes], terms, mode), self)

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        self._on_end = callback

    def close(self) -> None:
        self._stub.ask_blocking("close")

    async def _receive(self, descriptor: int) -> bytes:
        pipe, chunks = adopt(descriptor), []
        try:
            while (chunk := await pipe.receive(partial(error_of, plugin=self._stub.plugin))) is not None:
                chunks.append(chunk)
        finally:
            pipe.close()
        return b"".join(chunks)

    def _lease_ended(self, error: Exception) -> None:
        if isinstance(error, Revoked):
            self._revoked = error
            if self._on_end is not None:
                self._on_end(error)


def _read_and_close(descriptor: int, limits: FileLimits) -> bytes:
    try:
        return read_descriptor(descriptor, limits.read_bytes, limits.plugin)
    finally:
        os.close(descriptor)
