"""Following policy files: what is written to one is in force soon after, or said to be wrong. Decides nothing."""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from nyx_stream.host.operations.folder_watch import FolderWatch
from nyx_stream.host.operations.read_policy import read_policy
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.policy import SandboxPolicy
from nyx_stream.regular_file import open_regular

Folder = tuple[str, int, int]
"""A folder that stands at a path: the path, its device and its inode."""

Found = SandboxPolicy | Exception
"""What a policy file says, or what is wrong with it."""

Take = Callable[[PluginRecord, str, Found, str | None], Awaitable[str | None]]
"""Puts what a file says in force, or tells what is wrong with it, and returns that; takes what was told before."""

_SETTLED = 0.1
"""Seconds after its last change after which a file is read: whoever writes in place leaves it half written before."""
_LOOKS = 20
"""Times that a file is looked at before it is read though it changes, or lies in the future."""


class Look(NamedTuple):
    """What stands at a path, as far as it tells one state from another, and the folders that decide on it."""

    state: object
    settled: bool
    folders: frozenset[Folder]


@dataclass(eq=False)
class _Watched:
    """One plugin whose policy file is followed."""

    entry: PluginRecord
    path: str | None = None
    state: object = None
    """What was there at the last look; `None` before the first."""
    wrong: str | None = None
    """What was wrong with it."""
    folders: frozenset[Folder] = frozenset()
    check: asyncio.Task[None] | None = None
    again: bool = False
    """Whether something happened while it was looked at."""


class PolicyWatches:
    """The policy files that one host follows. `take` must not raise for what is wrong with a file."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._watched: dict[PluginRecord, _Watched] = {}
        self._watch: FolderWatch | None = None
        self._folders: frozenset[Folder] = frozenset()
        self._turning = asyncio.Lock()

    def follow(self, entry: PluginRecord) -> None:
        """Follows the policy file of a plugin from now on, whichever it has."""
        self._watched.setdefault(entry, _Watched(entry))
        self.stir(entry)

    def stir(self, entry: PluginRecord) -> None:
        """Has the file of a plugin looked at, if it is followed: it may be another one."""
        if entry in self._watched:
            self._stir(self._watched[entry])

    async def forget(self, entry: PluginRecord) -> None:
        """Follows the file of a plugin no more."""
        watched = self._watched.pop(entry, None)
        if watched is not None:
            await _end(watched.check)
            await self._turn()

    async def aclose(self) -> None:
        """Follows nothing any more; the thread has ended."""
        watched = list(self._watched.values())
        self._watched.clear()
        for one in watched:
            await _end(one.check)
        await self._turn()

    def _happened(self) -> None:
        for watched in self._watched.values():
            self._stir(watched)

    def _stir(self, watched: _Watched) -> None:
        if watched.check is not None:
            watched.again = True
            return
        name = f"nyx:policy:{watched.entry.id}"
        watched.check = asyncio.get_running_loop().create_task(self._check(watched), name=name)

    async def _check(self, watched: _Watched) -> None:
        try:
            watched.again = True
            while watched.again:
                watched.again = False
                await self._look(watched)
        finally:
            watched.check = None

    async def _look(self, watched: _Watched) -> None:
        path = watched.entry.policy_file
        if path != watched.path:
            watched.path, watched.state, watched.wrong, watched.folders = path, None, None, frozenset()
        look = await _settled(path) if path is not None else Look(None, True, frozenset())
        if look.folders != watched.folders:
            watched.folders = look.folders
            await self._turn()
        if path is None or look.state == watched.state:
            return
        found = await _read(path)
        if (await asyncio.to_thread(look_at, path)).state != look.state:  # it changed while it was read
            watched.again = True
            return
        watched.state = look.state
        watched.wrong = await self._take(watched.entry, path, found, watched.wrong)

    async def _turn(self) -> None:
        """Turns the watch to the folders that count now. Done to the end also if the caller is cancelled."""
        await asyncio.shield(self._turn_now())

    async def _turn_now(self) -> None:
        async with self._turning:
            wanted: frozenset[Folder] = frozenset().union(*(watched.folders for watched in self._watched.values()))
            if wanted == self._folders:
                return
            if self._watch is not None:
                await self._watch.aclose()
            self._watch = FolderWatch({path for path, _, _ in wanted}, self._happened) if wanted else None
            self._folders = wanted


def look_at(path: str) -> Look:
    """Looks at a policy file. Asks the system for everything anew: folders and links are replaced too."""
    from nyx_stream.policy.config_file import MAX_FILE_SIZE  # it brings pydantic

    folders: set[Folder] = set()
    for folder in (os.path.dirname(path), os.path.dirname(os.path.realpath(path))):
        try:
            found = os.stat(folder)
        except OSError:
            continue
        folders.add((folder, found.st_dev, found.st_ino))
    state: object
    settled = False
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            # The content alone would not do: it may change, be read, and change back between two looks. Nor would the
            # time: two writes may come within one tick of the kernel's clock.
            state = (
                found.st_dev,
                found.st_ino,
                found.st_ctime_ns,
                hashlib.blake2b(file.read(MAX_FILE_SIZE + 1)).digest(),
            )
            settled = abs(time.time() - found.st_mtime) > _SETTLED
    except OSError as error:
        state = str(error)
    return Look(state, settled, frozenset(folders))


async def _settled(path: str) -> Look:
    """Looks at a policy file until nobody is writing it; one that is not there is looked at twice."""
    look = await asyncio.to_thread(look_at, path)
    for _ in range(_LOOKS):
        if look.settled:
            break
        await asyncio.sleep(_SETTLED)
        before, look = look, await asyncio.to_thread(look_at, path)
        if isinstance(look.state, str) and look.state == before.state:
            break
    return look


async def _read(path: str) -> Found:
    try:
        policy, _ = await read_policy(path)
    except Exception as error:
        return error
    return policy or SandboxPolicy.locked_down()


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))
