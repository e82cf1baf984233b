"""The files service: opens every path below a granted directory, until the lease ends.

Theory of operation
-------------------
Each operation passes three checks, in this order:

1. The lease: an operation after its end raises `Revoked`, and one that opens a file takes one from the budget `opens`.
2. The guard decides on the text of the path, before any system call.
3. The system resolves the path below the granted directory, and a judge (see `access`) sees where it really led
   before anything is changed or handed out.

The first two run on the event loop, the third runs with the work itself in a thread. One audit event records the
outcome. At most `MAX_CONCURRENT` operations of a plugin run at a time. An operation that has to wait is checked when
its turn comes, so a revocation or a new policy applies to it. An operation that is cancelled keeps its slot until its
thread is free, so a plugin can't occupy more threads by cancelling.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from nyx_core import beneath
from nyx_core.beneath import EscapesRoot, Judge, NotPlain, Root
from nyx_stream.attribution import as_host
from nyx_stream.capabilities.files.access import AccessChecker, AccessRefused
from nyx_stream.capabilities.files.roots import GrantedRoots, RootsClosed
from nyx_stream.capabilities.files.service import FileLimits, OpenMode, read_descriptor
from nyx_stream.capabilities.import_paths import Access, ImportPaths
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.errors import FilesystemDenied, Revoked
from nyx_stream.guard import Decision, NarrowedGuard, SandboxGuard
from nyx_stream.guard.decision import ApprovedDecision
from nyx_stream.policy import NO_PLACES, PathRule, Places
from nyx_stream.policy.limits import Term

T = TypeVar("T")

MAX_CONCURRENT = 4
"""Operations of one plugin that run at the same time. Their threads compete with the event loop for the interpreter's
lock."""

_BINARY = getattr(os, "O_BINARY", 0)
_FLAGS: Mapping[str, int] = {
    "r": _BINARY,
    "w": _BINARY | os.O_CREAT | os.O_TRUNC,
    "a": _BINARY | os.O_CREAT | os.O_APPEND,
    "x": _BINARY | os.O_CREAT | os.O_EXCL,
}

_OPENING = ("read", "write")
"""The actions that open a file."""


class RootedPath(NamedTuple):
    """What a function of `nyx_core.beneath` takes: a path below a root, and the judge (`None` if none is needed)."""

    root: Root
    path: str
    judge: Judge | None


class _AllowedPath(NamedTuple):
    """A path that the guard allowed by its text: the granted prefix, and the path below it."""

    prefix: str
    below: str
    decision: Decision


class _Slots:
    """The semaphore of one plugin, made anew in each event loop: an asyncio semaphore belongs to one loop."""

    __slots__ = ("loop", "semaphore")

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.semaphore = asyncio.Semaphore(MAX_CONCURRENT)


class LocalFileService:
    """A `FileService` in this process.

    Args:
        places: the directories of `$DATA` and `$PLUGIN`, as the guard has them.
        protected: the paths that plugin code is imported from; no policy lets a plugin write there.
        parent: the service that this one was narrowed from.
    """

    __slots__ = ("_checker", "_guard", "_lease", "_places", "_protected", "_roots", "_slots")

    def __init__(
        self,
        guard: SandboxGuard,
        lease: Lease,
        *,
        places: Places = NO_PLACES,
        protected: ImportPaths | None = None,
        parent: "LocalFileService | None" = None,
    ) -> None:
        lease.check()
        self._guard = guard
        self._lease = lease
        self._places = places
        self._protected = ImportPaths() if protected is None else protected
        self._checker = AccessChecker(guard, places, self._protected)
        # A narrowed service shares the directories and the slots.
        self._roots: GrantedRoots = GrantedRoots() if parent is None else parent._roots
        self._slots: _Slots = _Slots() if parent is None else parent._slots
        if parent is None:
            lease.hold(self._roots.close)
            self.bind()

    def bind(self) -> None:
        """Opens the prefixes that the policy in force grants, as far as they aren't open yet.

        From then on each grant is that directory. To be called again when the policy has changed.
        """
        if not self._lease.ended:
            for rule in self._guard.policy.merged().bind(self._places).paths:
                self._roots.bind(rule.prefix)

    async def limits(self) -> FileLimits:
        limits = self._guard.limits
        return FileLimits(self._lease.plugin, limits.open_files, limits.read_bytes)

    def open(self, path: str, mode: OpenMode) -> Coroutine[Any, Any, int]:
        action: Literal["read", "write"] = "read" if mode == "rb" else "write"
        access = os.O_RDWR if "+" in mode else os.O_RDONLY if mode == "rb" else os.O_WRONLY
        flags = access | _FLAGS[mode[0]]

        def work(rooted: RootedPath) -> int:
            return beneath.open_file(rooted.root, rooted.path, flags, judge=rooted.judge)

        return self._run(action, action, (path,), work, os.close)

    async def read_file(self, path: str) -> bytes:
        def work(rooted: RootedPath) -> bytes:
            descriptor = beneath.open_file(rooted.root, rooted.path, os.O_RDONLY | _BINARY, judge=rooted.judge)
            try:
                return read_descriptor(descriptor, self._guard.limits.read_bytes, self._lease.plugin)
            finally:
                os.close(descriptor)

        return await self._run("read", "read", (path,), work)

    async def write_file(self, path: str, content: bytes) -> None:
        def work(rooted: RootedPath) -> None:
            beneath.replace_file(rooted.root, rooted.path, content, rooted.judge)

        await self._run("write", "write", (path,), work)

    async def stat(self, path: str) -> os.stat_result:
        return await self._run("stat", "read", (path,), lambda rooted: beneath.status(*rooted))

    async def list_directory(self, path: str) -> list[str]:
        return await self._run("list", "read", (path,), lambda rooted: beneath.list_directory(*rooted))

    async def mkdir(self, path: str, mode: int, parents: bool, exist_ok: bool) -> None:
        work = partial(_make_directory, mode=mode, parents=parents, exist_ok=exist_ok)
        await self._run("mkdir", "write", (path,), work)

    async def rename(self, source: str, target: str) -> None:
        def work(old: RootedPath, new: RootedPath) -> None:
            beneath.rename((old.root, old.path), (new.root, new.path), (old.judge, new.judge))

        await self._run("rename", "move", (source, target), work)

    async def remove(self, path: str, tree: bool) -> None:
        remove = beneath.remove_tree if tree else beneath.remove
        await self._run("remove", "move", (path,), lambda rooted: remove(*rooted))

    def narrow(self, prefixes: Sequence[str], mode: str, terms: Mapping[str, Term | None]) -> "LocalFileService":
        rules = []
        for path in prefixes:
            self._lease.check("narrow", path)
            verdict = self._guard.judge_path(path, mode)
            if not verdict.decision.allowed:
                self._guard.record("files", "narrow", path, verdict.decision)
                raise self._guard.path_error(verdict, "narrow", path, mode)
            rules.append(PathRule(verdict.path, "r" if mode == "r" else "rw"))
        guard, lease = NarrowedGuard(self._guard, paths=rules), self._lease.child(terms)
        return LocalFileService(guard, lease, places=self._places, protected=self._protected, parent=self)

    def on_end(self, callback: Callable[[Revoked], object]) -> None:
        self._lease.hold(lambda: callback(self._lease.error()))

    def close(self) -> None:
        self._lease.revoke("it was closed")

    async def _run(
        self,
        action: str,
        access: Access,
        paths: Sequence[str],
        work: Callable[..., T],
        discard: Callable[[T], None] | None = None,
    ) -> T:
        """Runs `work` in a thread, with one `RootedPath` for each path, if everything allows it.

        `discard` closes a result that the caller doesn't get, because it was cancelled or the lease has ended.

        Raises:
            Revoked: the lease has ended, or its budget is used up.
            FilesystemDenied: a rule denies it, or the path leads out of what is granted; audited.
            OSError: the system's answer for a path that is granted.
        """
        target = " -> ".join(paths)
        slots, loop = self._slots, asyncio.get_running_loop()
        if slots.loop is not loop:
            slots.loop, slots.semaphore = loop, asyncio.Semaphore(MAX_CONCURRENT)
        slot = slots.semaphore
        await slot.acquire()
        cancelled = False

        def in_thread() -> T:
            if cancelled:
                raise InterruptedError
            return self._perform(action, access, target, allowed, work)

        def finished(future: "asyncio.Future[T]") -> None:
            slot.release()
            if not future.cancelled():
                future.exception()  # asyncio logs an exception that no code has retrieved

        try:
            allowed = self._check(action, access, target, paths)
            running = loop.run_in_executor(None, in_thread)
        except BaseException:
            slot.release()
            raise
        running.add_done_callback(finished)
        try:
            result = await asyncio.shield(running)
        except asyncio.CancelledError:
            cancelled = True
            if discard is not None:
                running.add_done_callback(partial(_discard_result, discard))
            raise
        finally:
            # An error in the future has a traceback that holds this frame, so a reference here would make a cycle.
            del running
        if self._lease.ended and (access == "read" or discard is not None):
            if discard is not None:
                discard(result)
            raise self._lease.error(action, target)
        return result

    def _check(self, action: str, access: Access, target: str, paths: Sequence[str]) -> list[_AllowedPath]:
        """Checks the lease and the texts of the paths, and takes from what the operation uses up."""
        if self._lease.ended:
            raise self._revoked(action, target, self._lease.reason)
        allowed = list(map(partial(self._check_path, action, access), paths))
        used = set()
        for _, _, decision in allowed:
            # An approval for one use covers the whole operation, also one with two paths.
            if isinstance(decision, ApprovedDecision) and decision.ticket not in used:
                used.add(decision.ticket)
                if not (taken := decision.use()).allowed:
                    raise self._denied(action, target, taken)
        if action in _OPENING:
            try:
                self._lease.spend("opens")
            except Spent as spent:
                raise self._revoked(action, target, spent.reason) from spent
        return allowed

    def _check_path(self, action: str, access: Access, path: str) -> _AllowedPath:
        mode = "r" if access == "read" else "rw"
        verdict = self._guard.judge_path(path, mode)
        if verdict.prefix is None or not verdict.decision.allowed:
            self._guard.record("files", action, path, verdict.decision)
            raise self._guard.path_error(verdict, action, path, mode)
        if access != "read" and (refusal := self._checker.import_path_refusal(verdict.path, access)) is not None:
            raise self._denied(action, path, refusal)
        return _AllowedPath(verdict.prefix.prefix, verdict.below, verdict.decision)

    def _perform(
        self, action: str, access: Access, target: str, allowed: Sequence[_AllowedPath], work: Callable[..., T]
    ) -> T:
        """Carries out an operation that the guard allowed, and audits it. Runs in a thread."""
        decision = allowed[-1].decision
        for path in allowed[:-1]:
            if path.decision.reported:  # the event tells of the path that a report-only rule would deny
                decision = path.decision
                break
        try:
            with as_host(), self._roots:
                rooted = [
                    RootedPath(self._roots.root(prefix), below, self._checker.judge(prefix, access))
                    for prefix, below, _ in allowed
                ]
                return work(*rooted)
        except (EscapesRoot, NotPlain, AccessRefused) as refused:
            if isinstance(refused, AccessRefused):
                decision = refused.decision
            elif isinstance(refused, EscapesRoot):
                decision = Decision(False, decision.rule, f"it leads out of {decision.rule}")
            else:
                decision = Decision(False, decision.rule, "it is neither a regular file nor a directory")
            raise self._denial(action, target, decision) from None
        except RootsClosed:
            error = self._lease.error(action, target)
            decision = Decision(False, None, error.reason)
            raise error from None
        finally:
            self._guard.record("files", action, target, decision)

    def _revoked(self, action: str, target: str, reason: str) -> Revoked:
        self._guard.record("files", action, target, Decision(False, None, reason))
        return self._lease.error(action, target, reason)

    def _denied(self, action: str, target: str, decision: Decision) -> FilesystemDenied:
        self._guard.record("files", action, target, decision)
        return self._denial(action, target, decision)

    def _denial(self, action: str, target: str, decision: Decision) -> FilesystemDenied:
        return self._guard.denial(FilesystemDenied, "files", action, target, decision)


def _make_directory(rooted: RootedPath, mode: int, parents: bool, exist_ok: bool) -> None:
    root, path, judge = rooted
    if parents:
        for end in range(len(path)):
            if path[end] in ("/", os.sep) and path[:end].strip("/\\."):
                with suppress(FileExistsError):
                    beneath.make_directory(root, path[:end], judge=judge)
    try:
        beneath.make_directory(root, path, mode, judge)
    except FileExistsError:
        if not exist_ok or not stat.S_ISDIR(beneath.status(root, path, judge).st_mode):
            raise


def _discard_result(discard: Callable[[T], None], future: "asyncio.Future[T]") -> None:
    if not future.cancelled() and future.exception() is None:
        discard(future.result())
