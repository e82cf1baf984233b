"""Runs the operations of the files service.

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
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from nyx_core.beneath import EscapesRoot, Judge, NotPlain, Root
from nyx_stream.attribution import as_host
from nyx_stream.capabilities.files.access import AccessChecker, AccessRefused
from nyx_stream.capabilities.files.roots import GrantedRoots, RootsClosed
from nyx_stream.capabilities.import_paths import Access
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.errors import FilesystemDenied, Revoked
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.guard.decision import ApprovedDecision
from nyx_stream.policy import PathRule

T = TypeVar("T")

MAX_CONCURRENT = 4
"""Operations of one plugin that run at the same time. Their threads compete with the event loop for the interpreter's
lock."""

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


class OperationRunner:
    """Runs the operations of one files service.

    Args:
        guard: decides, and audits.
        lease: ends the service.
        checker: makes the judges.
        parent: the runner of the service that this one was narrowed from; they share directories and slots.
    """

    __slots__ = ("_checker", "_guard", "_lease", "_roots", "_slots")

    def __init__(
        self, guard: SandboxGuard, lease: Lease, checker: AccessChecker, parent: "OperationRunner | None" = None
    ) -> None:
        self._guard = guard
        self._lease = lease
        self._checker = checker
        self._roots: GrantedRoots = GrantedRoots() if parent is None else parent._roots
        self._slots: _Slots = _Slots() if parent is None else parent._slots
        if parent is None:
            lease.hold(self._roots.close)

    def bind(self, prefix: str) -> None:
        """Opens a granted prefix, so that the grant is the directory that is there now."""
        self._roots.bind(prefix)

    def narrowed_rule(self, path: str, mode: str) -> PathRule:
        """Returns the rule for a narrower grant. Raises `FilesystemDenied`, audited, if `path` isn't granted here."""
        self._lease.check("narrow", path)
        verdict = self._guard.judge_path(path, mode)
        if not verdict.decision.allowed:
            self._guard.record("files", "narrow", path, verdict.decision)
            raise self._guard.path_error(verdict, "narrow", path, mode)
        return PathRule(verdict.path, "r" if mode == "r" else "rw")

    async def run(
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
        except EscapesRoot:
            decision = Decision(False, decision.rule, f"it leads out of {decision.rule}")
            raise self._denial(action, target, decision) from None
        except NotPlain:
            decision = Decision(False, decision.rule, "it is neither a regular file nor a directory")
            raise self._denial(action, target, decision) from None
        except AccessRefused as refused:
            decision = refused.decision
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


def _discard_result(discard: Callable[[T], None], future: "asyncio.Future[T]") -> None:
    if not future.cancelled() and future.exception() is None:
        discard(future.result())
