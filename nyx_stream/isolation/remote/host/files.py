"""Host side of `self.files`: every path is opened here, below what is granted, and passed as a descriptor.

When the capability is revoked, nothing new is opened, and the worker is told, so that the proxy ends what is open. A
descriptor cannot be taken back: code that kept one can go on reading, or writing if it was opened for that, until its
worker ends.
"""

import asyncio
import os
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue

from nyx_stream.capabilities.files.guarded_files import open_descriptor, watch
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.host.attenuation import Narrow
from nyx_stream.isolation.remote.host.bodies import Downloads, Uploads, send_evenly
from nyx_stream.isolation.remote.host.broker import Means, Reply
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
    from nyx_stream.capabilities.files import GuardedFiles


class OnPath(Arguments):
    """`stat`, `list`."""

    path: PathText


class Open(Arguments):
    """`open`. The mode is a raw one: buffers and text are layers of the worker's."""

    path: PathText
    mode: Literal["rb", "r+b", "wb", "w+b", "ab", "a+b", "xb", "x+b"]


class Write(Arguments):
    """`write`: a whole file, its content here or in an announced body."""

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


class HostFiles:
    """A `Handler`, and `Leased`: one action for each operation of the capability."""

    def __init__(self, means: Means) -> None:
        self._plugin = means.plugin
        self._guard = means.assignment.guard
        self._files: GuardedFiles = means.provision.get("files")
        self._uploads = Uploads()
        self._downloads = Downloads(means.plugin)
        # Content that waits here to be written is memory of the host: one at a time.
        self._collecting = asyncio.Lock()

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action == "open":
            return await self._open(Open.model_validate(arguments))
        if action == "stat":
            return Reply(_numbers(await self._files.stat(OnPath.model_validate(arguments).path)))
        if action == "list":
            return self._names(await self._files.iterdir(OnPath.model_validate(arguments).path))
        if action == "write":
            return await self._write(Write.model_validate(arguments))
        if action == "announce":
            return self._uploads.give()
        if action == "facts":
            return Reply(self._facts())
        if action == "close":
            self._files.close()
            return Reply()
        return await self._change(action, arguments)

    def narrow(self, ask: Narrow) -> "HostFiles":
        less = copy(self)  # bodies are the plugin's, whichever of its files they are for
        prefixes = Prefixes.model_validate({"prefixes": ask.rules}).prefixes
        less._files = self._files.narrow(*prefixes, mode=ask.mode, **ask.terms)
        return less

    def watch(self, told: Callable[[Exception], None]) -> None:
        watch(self._files, told)

    async def aclose(self) -> None:
        self._uploads.close()
        await self._downloads.close()

    def _facts(self) -> dict[str, JsonValue]:
        limits = self._guard.limits
        return {"plugin": self._plugin, "open_files": limits.open_files, "read_bytes": limits.read_bytes}

    async def _open(self, ask: Open) -> Reply:
        return Reply(self._facts(), (await open_descriptor(self._files, ask.path, ask.mode),))

    async def _write(self, ask: Write) -> Reply:
        if ask.body is None:
            return Reply(await self._files.write_bytes(ask.path, ask.content))
        pipe = self._uploads.take(ask.body)
        try:
            async with self._collecting:
                await pipe.go()
                content = bytearray()
                while (chunk := await pipe.receive(self._failed)) is not None:
                    content += chunk
                    self._check_size(len(content))
                return Reply(await self._files.write_bytes(ask.path, content))
        finally:
            pipe.close()

    async def _change(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action == "mkdir":
            make = MakeDirectory.model_validate(arguments)
            await self._files.mkdir(make.path, make.mode, make.parents, make.exist_ok)
        elif action == "rename":
            rename = Rename.model_validate(arguments)
            await self._files.rename(rename.source, rename.target)
        elif action == "remove":
            remove = Remove.model_validate(arguments)
            await self._files.remove(remove.path, tree=remove.tree)
        else:
            raise ProtocolFault(f"files cannot {action!r}")
        return Reply()

    def _names(self, names: list[str]) -> Reply:
        text = b"\0".join(map(os.fsencode, names))
        if len(text) <= MAX_INLINE:
            return Reply(pack(text))
        return Reply(None, (self._downloads.begin(lambda pipe: send_evenly(pipe, text), _nothing),))

    def _check_size(self, size: int) -> None:
        # A worker holds no more than its memory, so no more than that can be honest.
        most = self._guard.limits.memory
        if size > most:
            raise LimitExceeded(plugin=self._plugin, limit="memory", allowed=most, detail="a file to write is larger")

    def _failed(self, fault: RemoteFault) -> Exception:
        return error_of(fault, self._plugin)


def _numbers(status: os.stat_result) -> JsonValue:
    """The status as pickle would take it apart: the ten fields that are a tuple, and all others by name."""
    parts: Any = status.__reduce__()
    fields, more = parts[1]
    return [list(fields), dict(more)]


async def _nothing() -> None:
    return
