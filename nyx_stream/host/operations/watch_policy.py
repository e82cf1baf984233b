"""Watches policy files, and puts a changed one in force or reports what is wrong with it.

Theory of operation: one thread runs `watchfiles` on the folders of all watched files, and calls back on the event loop
when something changes in them. Names in those notifications are ignored, because editors and configuration management
replace files through renames and links. Instead every watched file is checked: its `FileState` is taken until it has
settled, and if it differs from the last state, the file is read. If the state has changed again by then, the read is
discarded and the check repeated. A check therefore never applies a half-written file, and a change is never missed.
"""

import asyncio
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from nyx_stream.errors import WatchUnavailable
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.update_policy import apply_policy_file, read_policy
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.policy import SandboxPolicy
from nyx_stream.regular_file import open_regular

_log = logging.getLogger("nyx.host")

_Folder: TypeAlias = tuple[str, int, int]
"""The path, the device and the inode of a folder."""

_SETTLE_SECONDS = 0.1
"""Seconds after its last change before a file is read: a writer may not have finished before."""

_MAX_STATES = 20
"""States that are taken of a file that keeps changing, or has a time in the future, before it is read anyway."""

_STEP_MS = 100
"""Milliseconds without a change before changes are reported."""

_MAX_STEP_MS = 1600
"""Milliseconds before changes are reported although more follow."""

_QUIET_STEPS = 50
"""Steps without a change before a check is made anyway: network file systems don't report every change."""


def require_watchfiles() -> None:
    """Raises `WatchUnavailable` if `watchfiles` isn't installed."""
    try:
        import watchfiles  # noqa: F401  # checked here, used by the thread
    except ImportError as error:
        raise WatchUnavailable("files are watched by watchfiles: pip install 'nyx-sandbox[watch]'") from error


class FileState(NamedTuple):
    """The state of the file at a path, and the folders whose changes can change it."""

    value: object
    """Differs between two states of the file; a text if the file can't be opened."""
    settled: bool
    folders: frozenset[_Folder]


@dataclass(eq=False)
class _Watched:
    """A plugin whose policy file is watched."""

    record: PluginRecord
    path: str | None = None
    state: object = None
    """The value of the last state; `None` before the first check."""
    reported: str | None = None
    """The error that was reported for the file."""
    folders: frozenset[_Folder] = frozenset()
    check: asyncio.Task[None] | None = None
    check_again: bool = False
    """Whether something changed during the check."""


class PolicyWatcher:
    """The policy files that one host watches."""

    def __init__(self, audit: AuditTrail) -> None:
        self._audit = audit
        self._watched: dict[PluginRecord, _Watched] = {}
        self._folder_watch: FolderWatch | None = None
        self._folders: frozenset[_Folder] = frozenset()
        self._restarting = asyncio.Lock()

    def watch(self, record: PluginRecord) -> None:
        """Watches the policy file of a plugin, even if another file becomes its policy file."""
        self._watched.setdefault(record, _Watched(record))
        self.recheck(record)

    def recheck(self, record: PluginRecord) -> None:
        """Checks the file of a plugin, if it is watched: the plugin may have another policy file now."""
        if record in self._watched:
            self._schedule_check(self._watched[record])

    async def unwatch(self, record: PluginRecord) -> None:
        """Stops watching the file of a plugin."""
        watched = self._watched.pop(record, None)
        if watched is not None:
            await _cancel(watched.check)
            await self._update_folders()

    async def aclose(self) -> None:
        """Stops watching; returns when the thread has ended."""
        watched = list(self._watched.values())
        self._watched.clear()
        for one in watched:
            await _cancel(one.check)
        await self._update_folders()

    def _on_change(self) -> None:
        for watched in self._watched.values():
            self._schedule_check(watched)

    def _schedule_check(self, watched: _Watched) -> None:
        if watched.check is not None:
            watched.check_again = True
            return
        name = f"nyx:policy:{watched.record.id}"
        watched.check = asyncio.get_running_loop().create_task(self._run_checks(watched), name=name)

    async def _run_checks(self, watched: _Watched) -> None:
        try:
            watched.check_again = True
            while watched.check_again:
                watched.check_again = False
                await self._check(watched)
        finally:
            watched.check = None

    async def _check(self, watched: _Watched) -> None:
        path = watched.record.policy_file
        if path != watched.path:
            watched.path, watched.state, watched.reported, watched.folders = path, None, None, frozenset()
        state = await _settled_state(path) if path is not None else FileState(None, True, frozenset())
        if state.folders != watched.folders:
            watched.folders = state.folders
            await self._update_folders()
        if path is None or state.value == watched.state:
            return
        found = await _read(path)
        if (await asyncio.to_thread(file_state, path)).value != state.value:  # it changed while it was read
            watched.check_again = True
            return
        watched.state = state.value
        watched.reported = await apply_policy_file(watched.record, path, found, watched.reported, self._audit)

    async def _update_folders(self) -> None:
        """Watches the folders that matter now. Completes even if the caller is cancelled."""
        await asyncio.shield(self._restart_folder_watch())

    async def _restart_folder_watch(self) -> None:
        async with self._restarting:
            wanted: frozenset[_Folder] = frozenset().union(*(watched.folders for watched in self._watched.values()))
            if wanted == self._folders:
                return
            if self._folder_watch is not None:
                await self._folder_watch.aclose()
            paths = {path for path, _, _ in wanted}
            self._folder_watch = FolderWatch(paths, self._on_change) if wanted else None
            self._folders = wanted


class FolderWatch:
    """A thread that calls `on_change` on the event loop: at first, after changes in the folders, and periodically."""

    def __init__(self, folders: Collection[str], on_change: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sorted(folders),), name="nyx-watch", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """Stops the thread; returns when it has ended."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self, folders: list[str]) -> None:
        period = _STEP_MS * _QUIET_STEPS / 1000
        try:
            self._watch(folders)
        except (OSError, RuntimeError) as error:  # a folder was removed, or the system has no more watches
            _log.warning("policy files can't be watched, and are checked every %g s: %s", period, error)
        while not self._stop.wait(period):
            self._notify()

    def _watch(self, folders: list[str]) -> None:
        from watchfiles import watch

        changes = watch(
            *folders,
            watch_filter=None,
            debounce=_MAX_STEP_MS,
            step=_STEP_MS,
            stop_event=self._stop,
            rust_timeout=_STEP_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )
        # Notify in the first step, too: changes between the last check and the start of the watch were not seen.
        quiet = _QUIET_STEPS
        for found in changes:
            quiet += 1
            if found or quiet >= _QUIET_STEPS:
                quiet = 0
                self._notify()

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._on_change)
        except RuntimeError:  # the loop is closed
            self._stop.set()


def file_state(path: str) -> FileState:
    """Returns the state of a policy file. Resolves its path anew, because folders and links may be replaced."""
    from nyx_stream.policy.config_file import MAX_FILE_SIZE  # it imports pydantic

    folders: set[_Folder] = set()
    for folder in (os.path.dirname(path), os.path.dirname(os.path.realpath(path))):
        try:
            found = os.stat(folder)
        except OSError:
            continue
        folders.add((folder, found.st_dev, found.st_ino))
    value: object
    settled = False
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            # The content alone isn't enough: it may change and change back between two states. Nor is the time:
            # two writes may come within one tick of the kernel's clock.
            value = (
                found.st_dev,
                found.st_ino,
                found.st_ctime_ns,
                hashlib.blake2b(file.read(MAX_FILE_SIZE + 1)).digest(),
            )
            settled = abs(time.time() - found.st_mtime) > _SETTLE_SECONDS
    except OSError as error:
        value = str(error)
    return FileState(value, settled, frozenset(folders))


async def _settled_state(path: str) -> FileState:
    """Returns the state of a policy file when it has settled. A file that can't be opened is tried twice."""
    state = await asyncio.to_thread(file_state, path)
    for _ in range(_MAX_STATES):
        if state.settled:
            break
        await asyncio.sleep(_SETTLE_SECONDS)
        before, state = state, await asyncio.to_thread(file_state, path)
        if isinstance(state.value, str) and state.value == before.value:
            break
    return state


async def _read(path: str) -> SandboxPolicy | Exception:
    try:
        policy, _ = await read_policy(path)
    except Exception as error:
        return error
    return policy or SandboxPolicy.locked_down()


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))
