"""Host binding of the files service: opens each file for the worker and passes the descriptor.

When the lease ends, the host opens nothing new and notifies the worker, which then ends what is open. This isn't
enforced: a descriptor can't be taken back. Code in the worker that kept one can use it as it was opened until the
worker's process ends.
"""

import asyncio
import os
from collections.abc import Callable
from copy import copy
from functools import partial

from pydantic import TypeAdapter

from nyx_stream.capabilities.files.service import OpenMode
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.capability_set import CapabilitySet
from nyx_stream.isolation.remote.host.bodies import Downloads, Uploads, send_evenly
from nyx_stream.isolation.remote.host.broker import Handler, Narrow, Reply
from nyx_stream.isolation.remote.wire.messages import MAX_INLINE, Packed, PathText, error_of, pack

_PREFIXES = TypeAdapter(list[PathText])


class FilesHandler(Handler):
    """One action for each operation of the service, `announce` for the content of a large file."""

    capability = "files"
    actions = ("announce", "close", "limits", "list", "mkdir", "open", "remove", "rename", "stat", "write")

    def __init__(self, capabilities: CapabilitySet) -> None:
        super().__init__(capabilities)
        self._guard = capabilities.assignment.guard
        self._uploads = Uploads()
        self._downloads = Downloads(self._plugin)
        # Content that waits to be written is memory of the host, so one body at a time.
        self._collecting = asyncio.Lock()

    def narrow(self, ask: Narrow) -> "FilesHandler":
        narrowed = copy(self)  # the bodies of all narrowed files are counted together
        narrowed._service = self._service.narrow(_PREFIXES.validate_python(ask.rules), ask.mode, ask.terms)
        return narrowed

    def watch(self, ended: Callable[[Exception], None]) -> None:
        self._service.on_end(ended)

    async def aclose(self) -> None:
        self._uploads.close()
        await self._downloads.close()

    async def open(self, path: PathText, mode: OpenMode) -> Reply:
        descriptor = await self._service.open(path, mode)
        limits = self._guard.limits
        return Reply([self._plugin, limits.open_files, limits.read_bytes], (descriptor,))

    async def limits(self) -> Reply:
        return Reply([*await self._service.limits()])

    async def stat(self, path: PathText) -> Reply:
        status = await self._service.stat(path)
        # As pickle takes it apart: the ten fields that make the tuple, and the others by name.
        fields, others = status.__reduce__()[1]
        return Reply([[*fields], {**others}])

    async def write(self, path: PathText, content: Packed = b"", body: int | None = None) -> Reply:
        if body is None:
            await self._service.write_file(path, content)
            return Reply()
        pipe = self._uploads.take(body)
        try:
            async with self._collecting:
                await pipe.go()
                collected = bytearray()
                while (chunk := await pipe.receive(partial(error_of, plugin=self._plugin))) is not None:
                    collected += chunk
                    # It comes out of the worker's memory, so an honest worker sends no more than that.
                    limit = self._guard.limits.memory
                    if len(collected) > limit:
                        detail = "the content of a file to write is larger"
                        raise LimitExceeded(plugin=self._plugin, limit="memory", allowed=limit, detail=detail)
                await self._service.write_file(path, bytes(collected))
                return Reply()
        finally:
            pipe.close()

    async def mkdir(self, path: PathText, mode: int, parents: bool, exist_ok: bool) -> Reply:
        await self._service.mkdir(path, mode, parents, exist_ok)
        return Reply()

    async def rename(self, source: PathText, target: PathText) -> Reply:
        await self._service.rename(source, target)
        return Reply()

    async def remove(self, path: PathText, tree: bool) -> Reply:
        await self._service.remove(path, tree)
        return Reply()

    async def list(self, path: PathText) -> Reply:
        names = b"\0".join(map(os.fsencode, await self._service.list_directory(path)))
        if len(names) <= MAX_INLINE:
            return Reply(pack(names))
        return Reply(None, (self._downloads.begin(lambda pipe: send_evenly(pipe, names)),))

    async def announce(self) -> Reply:
        return self._uploads.give()

    async def close(self) -> Reply:
        self._service.close()
        return Reply()
