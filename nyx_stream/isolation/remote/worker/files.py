"""Worker side of `self.files`: the face of `GuardedFiles`, around descriptors that the host opened.

Decides nothing. A file is a real aiofiles file, with the buffers and the text layer of this process. When the host says
that the lease has ended, open files end here as they do inline. That is no wall: a descriptor cannot be taken back.
"""

import asyncio
import os
from asyncio import AbstractEventLoop
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from nyx_stream.capabilities.files.base import Files, Path
from nyx_stream.capabilities.files.open_arguments import Layers
from nyx_stream.capabilities.files.open_files import OpenFiles
from nyx_stream.capabilities.files.read_file import read_descriptor
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import Revoked
from nyx_stream.guard import path_text
from nyx_stream.isolation.remote.wire.messages import (
    MAX_INLINE,
    MAX_PASSED_DESCRIPTORS,
    RemoteFault,
    error_of,
    pack,
    pack_path,
    unpack,
)
from nyx_stream.isolation.remote.worker.bodies import adopt, ask_with_body, whole
from nyx_stream.isolation.remote.worker.rpc import CapabilityStub
from nyx_stream.policy.limits import Term

_AT_ONCE = MAX_PASSED_DESCRIPTORS // 2
"""Descriptors that whole reads and listings may take at once, beside those of open files."""


class Facts(NamedTuple):
    """What the host says about the grant."""

    plugin: str
    open_files: int
    read_bytes: int


class Granted:
    """What all files of the plugin have in common, the narrowed ones too."""

    def __init__(self) -> None:
        self.passing = asyncio.Semaphore(_AT_ONCE)
        self.facts: Facts | None = None


class RemoteFiles(Files):
    """Files below the granted prefixes, opened by the host. What is raised has the host's text.

    `above` is what this one narrows. Every open file keeps what it was opened through: the host ends what was narrowed
    when nothing refers to it.
    """

    __slots__ = ("__weakref__", "_above", "_files", "_granted", "_line", "_over")

    def __init__(self, line: CapabilityStub, above: "RemoteFiles | None" = None) -> None:
        self._line = line
        self._above = above
        self._granted: Granted = Granted() if above is None else above._granted
        self._files: OpenFiles | None = None
        self._over: str | None = None
        line.on_end(self._end)

    def close(self) -> None:
        self._line.ask_at_once("close")

    async def read_bytes(self, path: Path) -> bytes:
        async with self._granted.passing:
            given = path_text(path)
            answered = await self._line.ask("open", path=pack_path(given), mode="rb")
            facts = self._learn(answered.value)
            descriptor = answered.descriptors[0]
            try:
                if os.fstat(descriptor).st_size > MAX_INLINE:  # from a disk that may take a while
                    reading = asyncio.to_thread(_read_and_close, os.dup(descriptor), facts)
                    content = await asyncio.shield(reading)
                else:
                    content = read_descriptor(descriptor, facts.read_bytes, facts.plugin)
                self._check("read", given)
                return content
            finally:
                os.close(descriptor)

    async def write_bytes(self, path: Path, data: bytes | bytearray | memoryview) -> int:
        content, text = bytes(data), pack_path(path_text(path))
        if len(content) <= MAX_INLINE:
            await self._line.ask("write", path=text, content=pack(content))
        else:
            async with self._granted.passing:
                await ask_with_body(self._line, "write", whole(content), path=text)
        return len(content)

    async def stat(self, path: Path) -> os.stat_result:
        fields, more = (await self._line.ask("stat", path=pack_path(path_text(path)))).value
        return os.stat_result(fields, more)

    async def mkdir(self, path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        await self._line.ask(
            "mkdir", path=pack_path(path_text(path)), mode=mode, parents=bool(parents), exist_ok=bool(exist_ok)
        )

    async def rename(self, source: Path, target: Path) -> None:
        await self._line.ask("rename", source=pack_path(path_text(source)), target=pack_path(path_text(target)))

    async def remove(self, path: Path, *, tree: bool = False) -> None:
        await self._line.ask("remove", path=pack_path(path_text(path)), tree=bool(tree))

    def _narrowed(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> "RemoteFiles":
        return RemoteFiles(self._line.narrow([pack_path(prefix) for prefix in prefixes], terms, mode), self)

    async def _open(
        self,
        file: Path,
        mode: str,
        layers: Layers,
        loop: AbstractEventLoop | None,
        executor: Executor | None,
    ) -> Any:
        given = path_text(file)
        _check_arguments(layers)
        files = await self._opening()
        with files.room():
            answered = await self._line.ask("open", path=pack_path(given), mode=_raw(mode))
            self._learn(answered.value)
            try:
                self._check("read" if _raw(mode) == "rb" else "write")
            except Revoked:
                os.close(answered.descriptors[0])
                raise
            opened = layers(given, opener=lambda *_: answered.descriptors[0])
            admitted: Any = files.admit(opened, loop, executor)
            admitted._nyx_opened_through = self
            return admitted

    async def _list(self, path: Path) -> list[str]:
        text = path_text(path)
        async with self._granted.passing:
            answered = await self._line.ask("list", path=pack_path(text))
            return [os.fsdecode(name) for name in (await self._listing(answered)).split(b"\0") if name]

    async def _listing(self, answered: Any) -> bytes:
        if not answered.descriptors:
            return unpack(answered.value)
        pipe, parts = adopt(answered.descriptors[0]), []
        try:
            while (part := await pipe.receive(self._failed)) is not None:
                parts.append(part)
        finally:
            pipe.close()
        return b"".join(parts)

    async def _opening(self) -> OpenFiles:
        if self._files is None:
            facts = self._granted.facts or self._learn((await self._line.ask("facts")).value)
            above = None if self._above is None else await self._above._opening()
            lease, granted = Lease(facts.plugin, self._line.capability), self._granted
            self._files = OpenFiles(lease, lambda: (granted.facts or facts).open_files, above)
        return self._files

    def _end(self, error: Exception) -> None:
        """The host says that the lease has ended."""
        self._over = error.reason if isinstance(error, Revoked) else str(error)
        if self._files is not None:
            self._files.end(self._revoked)

    def _check(self, action: str, target: str = "") -> None:
        if self._over is not None:
            raise self._revoked(action, target)

    def _revoked(self, action: str = "use", target: str = "") -> Revoked:
        facts, capability = self._granted.facts, self._line.capability
        plugin = None if facts is None else facts.plugin
        reason = self._over or "its lease has ended"
        return Revoked(plugin=plugin, capability=capability, action=action, target=target, rule=None, reason=reason)

    def _learn(self, value: dict[str, Any]) -> Facts:
        self._granted.facts = facts = Facts(*(value[name] for name in Facts._fields))
        return facts

    def _failed(self, fault: RemoteFault) -> Exception:
        return error_of(fault, self._line.capability)


class _Reached(Exception):
    """The built-in `open` found its arguments in order and asked for a descriptor."""


def _check_arguments(layers: Layers) -> None:
    """Raises what the built-in `open` says about its arguments, before the host is asked."""

    def reached(*_: object) -> int:
        raise _Reached

    try:
        layers("path", opener=reached)
    except _Reached:
        return


def _raw(mode: str) -> str:
    kind = next(letter for letter in mode if letter in "rwax")
    return f"{kind}+b" if "+" in mode else f"{kind}b"


def _read_and_close(descriptor: int, facts: Facts) -> bytes:
    try:
        return read_descriptor(descriptor, facts.read_bytes, facts.plugin)
    finally:
        os.close(descriptor)


def files(line: CapabilityStub) -> RemoteFiles:
    """A `ProxyFactory`."""
    return RemoteFiles(line)
