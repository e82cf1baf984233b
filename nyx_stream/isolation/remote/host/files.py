"""Host binding of the files service: opens each file for the worker and passes the descriptor.

When the lease ends, the host opens nothing new and notifies the worker, which then ends what is open. This isn't
enforced: a descriptor can't be taken back. Code in the worker that kept one can use it as it was opened until the
worker's process ends.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from nyx_stream.capabilities.files.service import OpenMode
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.host.attenuation import Narrow
from nyx_stream.isolation.remote.host.bodies import Downloads, Uploads, send_evenly
from nyx_stream.isolation.remote.host.broker import HandlerContext, Reply
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    MAX_INLINE,
    Arguments,
    Packed,
    PathText,
    RemoteFault,
    error_of,
    pack,
)

if TYPE_CHECKING:
    from nyx_stream.capabilities.files.service import FileService


class NoArguments(Arguments):
    """`announce`, `limits`, `close`."""


class OnPath(Arguments):
    """`stat`, `list`."""

    path: PathText


class OpenFile(Arguments):
    """`open`."""

    path: PathText
    mode: OpenMode


class Write(Arguments):
    """`write`: the content of a file, here or in an announced body."""

    path: PathText
    content: Packed = b""
    body: int | None = None


class MakeDirectory(Arguments):
    """`mkdir`."""

    path: PathText
    mode: int
    parents: bool
    exist_ok: bool


class Rename(Arguments):
    """`rename`."""

    source: PathText
    target: PathText


class Remove(Arguments):
    """`remove`."""

    path: PathText
    tree: bool


class Prefixes(Arguments):
    """The rules of `narrow`."""

    prefixes: list[PathText]


class FilesHandler:
    """A `Narrowable` handler, with one action for each operation of the service."""

    def __init__(self, context: HandlerContext) -> None:
        self._plugin = context.plugin
        self._guard = context.assignment.guard
        self._service: FileService = context.capabilities.service("files")
        self._uploads = Uploads()
        self._downloads = Downloads(context.plugin)
        # Content that waits to be written is memory of the host, so one body at a time.
        self._collecting = asyncio.Lock()

    def handle(self, action: str, arguments: dict[str, JsonValue]) -> Coroutine[Any, Any, Reply]:
        found = _ACTIONS.get(action)
        if found is None:
            raise ProtocolFault(f"files has no action {action!r}")
        model, method = found
        return method(self, model.model_validate(arguments))

    def narrow(self, ask: Narrow) -> "FilesHandler":
        narrowed = copy(self)  # the bodies of all narrowed files are counted together
        prefixes = Prefixes.model_validate({"prefixes": ask.rules}).prefixes
        narrowed._service = self._service.narrow(prefixes, ask.mode, ask.terms)
        return narrowed

    def watch(self, ended: Callable[[Exception], None]) -> None:
        self._service.on_end(ended)

    async def aclose(self) -> None:
        self._uploads.close()
        await self._downloads.close()

    async def _open(self, ask: OpenFile) -> Reply:
        descriptor = await self._service.open(ask.path, ask.mode)
        limits = self._guard.limits
        return Reply([self._plugin, limits.open_files, limits.read_bytes], (descriptor,))

    async def _limits(self, _ask: NoArguments) -> Reply:
        return Reply(list(await self._service.limits()))

    async def _stat(self, ask: OnPath) -> Reply:
        status: Any = await self._service.stat(ask.path)
        # As pickle takes it apart: the ten fields that make the tuple, and the others by name.
        fields, others = status.__reduce__()[1]
        return Reply([list(fields), dict(others)])

    async def _list(self, ask: OnPath) -> Reply:
        names = b"\0".join(map(os.fsencode, await self._service.list_directory(ask.path)))
        if len(names) <= MAX_INLINE:
            return Reply(pack(names))
        return Reply(None, (self._downloads.begin(lambda pipe: send_evenly(pipe, names)),))

    async def _write(self, ask: Write) -> Reply:
        if ask.body is None:
            await self._service.write_file(ask.path, ask.content)
            return Reply()
        pipe = self._uploads.take(ask.body)
        try:
            async with self._collecting:
                await pipe.go()
                content = bytearray()
                while (chunk := await pipe.receive(self._failed)) is not None:
                    content += chunk
                    self._check_size(len(content))
                await self._service.write_file(ask.path, bytes(content))
                return Reply()
        finally:
            pipe.close()

    async def _mkdir(self, ask: MakeDirectory) -> Reply:
        await self._service.mkdir(ask.path, ask.mode, ask.parents, ask.exist_ok)
        return Reply()

    async def _rename(self, ask: Rename) -> Reply:
        await self._service.rename(ask.source, ask.target)
        return Reply()

    async def _remove(self, ask: Remove) -> Reply:
        await self._service.remove(ask.path, ask.tree)
        return Reply()

    async def _announce(self, _ask: NoArguments) -> Reply:
        return self._uploads.give()

    async def _close(self, _ask: NoArguments) -> Reply:
        self._service.close()
        return Reply()

    def _check_size(self, size: int) -> None:
        # The content comes out of the worker's memory, so an honest worker sends no more than that.
        limit = self._guard.limits.memory
        if size > limit:
            detail = "the content of a file to write is larger"
            raise LimitExceeded(plugin=self._plugin, limit="memory", allowed=limit, detail=detail)

    def _failed(self, fault: RemoteFault) -> Exception:
        return error_of(fault, self._plugin)


_ACTIONS: Mapping[str, tuple[type[Arguments], Callable[[FilesHandler, Any], Coroutine[Any, Any, Reply]]]] = {
    "announce": (NoArguments, FilesHandler._announce),
    "close": (NoArguments, FilesHandler._close),
    "limits": (NoArguments, FilesHandler._limits),
    "list": (OnPath, FilesHandler._list),
    "mkdir": (MakeDirectory, FilesHandler._mkdir),
    "open": (OpenFile, FilesHandler._open),
    "remove": (Remove, FilesHandler._remove),
    "rename": (Rename, FilesHandler._rename),
    "stat": (OnPath, FilesHandler._stat),
    "write": (Write, FilesHandler._write),
}
