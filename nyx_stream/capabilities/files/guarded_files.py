"""The object that a plugin knows as `self.files`. What an operation may do, `gate` decides; here is what it
does."""

import asyncio
import contextlib
import io
import os
import stat
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from nyx_core import beneath
from nyx_stream.capabilities.files.access import AccessChecker
from nyx_stream.capabilities.files.base import Files, Path
from nyx_stream.capabilities.files.open_arguments import Layers
from nyx_stream.capabilities.files.open_files import File, Handover, OpenFiles
from nyx_stream.capabilities.files.operations import FileGate, Site
from nyx_stream.capabilities.files.read_file import read_whole
from nyx_stream.capabilities.import_paths import Access, ImportPaths
from nyx_stream.capabilities.lease import Lease
from nyx_stream.errors import Revoked
from nyx_stream.guard import NarrowedGuard, SandboxGuard, path_text
from nyx_stream.policy import NO_PLACES, Places
from nyx_stream.policy.limits import Term

Sites = Sequence[Site]


class GuardedFiles(Files):
    """Files below the granted prefixes, opened in this process.

    Args:
        guard: decides.
        lease: ends everything when it is revoked; `close` does the same for this object.
        places: the directories of `$DATA` and `$PLUGIN`, as the guard knows them.
        protected: where plugin code is imported from: never written, whatever the policy grants.
        above: the capability that this one narrows.
    """

    __slots__ = ("_below", "_files", "_gate", "_guard", "_lease", "_places", "_protected", "_release", "_told")

    def __init__(
        self,
        guard: SandboxGuard,
        lease: Lease,
        *,
        places: Places = NO_PLACES,
        protected: ImportPaths | None = None,
        above: "GuardedFiles | None" = None,
    ) -> None:
        self._lease = lease
        self._guard = guard
        self._places = places
        self._protected = ImportPaths() if protected is None else protected
        bench = AccessChecker(guard, places, self._protected)
        gate, files = (None, None) if above is None else (above._gate, above._files)
        self._gate: FileGate = FileGate(guard, lease, bench, gate)
        self._files: OpenFiles = OpenFiles(lease, lambda: guard.limits.open_files, files)
        self._below = above is not None
        self._told: Callable[[Revoked], None] | None = None
        self._release = lease.hold(self._end)
        if above is None:
            self.bind()

    def bind(self) -> None:
        """Opens what the policy in force grants and is not open yet: from now on a grant is that directory."""
        for rule in self._guard.policy.merged().bind(self._places).paths:
            self._gate.bind(rule.prefix)

    def close(self) -> None:
        if self._below:  # the lease is its own, and those below end with it
            self._lease.revoke("it was closed")
        self._release()
        self._end()

    async def read_bytes(self, path: Path) -> bytes:
        def read(sites: Sites) -> bytes:
            return read_whole(sites[0], limit=self._guard.limits.read_bytes, plugin=self._lease.plugin)

        return await self._gate.perform("read", "read", [path], read)

    async def write_bytes(self, path: Path, data: bytes | bytearray | memoryview) -> int:
        content = bytes(data)

        def write(sites: Sites) -> int:
            beneath.replace_file(sites[0].root, sites[0].path, content, sites[0].judge)
            return len(content)

        return await self._gate.perform("write", "write", [path], write)

    async def stat(self, path: Path) -> os.stat_result:
        return await self._gate.perform("stat", "read", [path], _status)

    async def mkdir(self, path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        work = partial(_make_directory, mode=int(mode), parents=bool(parents), exist_ok=bool(exist_ok))
        await self._gate.perform("mkdir", "write", [path], lambda sites: work(sites[0]))

    async def rename(self, source: Path, target: Path) -> None:
        def rename(sites: Sites) -> None:
            old, new = sites
            beneath.rename((old.root, old.path), (new.root, new.path), (old.judge, new.judge))

        await self._gate.perform("rename", "move", [source, target], rename)

    async def remove(self, path: Path, *, tree: bool = False) -> None:
        work = beneath.remove_tree if tree else beneath.remove
        await self._gate.perform(
            "remove", "move", [path], lambda sites: work(sites[0].root, sites[0].path, sites[0].judge)
        )

    def _narrowed(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> "GuardedFiles":
        guard = NarrowedGuard(self._guard, paths=self._gate.narrowed(prefixes, mode))
        lease = self._lease.child(terms)
        return GuardedFiles(guard, lease, places=self._places, protected=self._protected, above=self)

    async def _open(
        self,
        file: Path,
        mode: str,
        layers: Layers,
        loop: AbstractEventLoop | None,
        executor: Executor | None,
    ) -> Any:
        with self._files.room():
            return self._files.admit(await self._unwrapped(file, mode, layers), loop, executor)

    async def _unwrapped(self, file: Path, mode: str, layers: Layers) -> File:
        writes = not {"w", "x", "a", "+"}.isdisjoint(mode)
        handover = Handover()

        def work(sites: Sites) -> File:
            site = sites[0]

            # The built-in `open` checks the mode, and what does not go with it, before it asks for a descriptor.
            def opener(_: str, flags: int) -> int:
                return beneath.open_file(site.root, site.path, flags, judge=site.judge)

            return handover.give(layers(site.given, opener=opener))

        access: Access = "write" if writes else "read"
        try:
            opened = await self._gate.perform(access, access, [file], work)
        except (asyncio.CancelledError, Revoked):
            handover.abandon()
            raise
        if self._gate.ended:
            handover.abandon()
            raise self._gate.error(access)
        return opened

    async def _list(self, path: Path) -> list[str]:
        text = path_text(path)
        names = await self._gate.perform("list", "read", [text], _names)
        return names if text == "." else [os.path.join(text, name) for name in names]

    def _end(self) -> None:
        self._gate.close()
        self._files.end(self._gate.error)
        told, self._told = self._told, None
        if told is not None:
            told(self._gate.error())


def watch(files: GuardedFiles, told: Callable[[Revoked], None]) -> None:
    """Has `told` called once, with the error for what is held open, when the lease ends or `close` is called."""
    files._told = told


async def open_descriptor(files: GuardedFiles, path: str, mode: str) -> int:
    """Opens a regular file for another process; `mode` is a binary one. The descriptor is the caller's to close.

    It is not counted here, and it outlives the lease: a descriptor that was passed on cannot be taken back. Raises as
    every operation of `files`.
    """
    opened = await files._unwrapped(path, mode, partial(io.open, mode=mode, buffering=0))
    try:
        return os.dup(opened.fileno())
    finally:
        opened.close()


def _status(sites: Sites) -> os.stat_result:
    return beneath.status(sites[0].root, sites[0].path, sites[0].judge)


def _names(sites: Sites) -> list[str]:
    return beneath.list_directory(sites[0].root, sites[0].path, sites[0].judge)


def _make_directory(site: Site, mode: int, parents: bool, exist_ok: bool) -> None:
    path = site.path
    above = [cut for cut in range(len(path)) if path[cut] in ("/", os.sep) and path[:cut].strip("/\\.")]
    for cut in above if parents else ():
        with contextlib.suppress(FileExistsError):
            beneath.make_directory(site.root, site.path[:cut], judge=site.judge)
    try:
        beneath.make_directory(site.root, site.path, mode, site.judge)
    except FileExistsError:
        if not exist_ok or not stat.S_ISDIR(beneath.status(site.root, site.path, site.judge).st_mode):
            raise
