"""The way every operation takes: the lease; the guard, on the text, before any system call; and, in one
thread hop, the system below the granted directory, with a judge on what the path really led to. One audit
event tells the outcome.

Knows neither files nor their content: it is given the work to do.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nyx_core.beneath import EscapesRoot, Judge, NotPlain, Root
from nyx_stream.attribution import as_host
from nyx_stream.capabilities.files.access import AccessChecker, AccessRefused
from nyx_stream.capabilities.files.roots import GrantedRoots, RootsClosed
from nyx_stream.capabilities.import_paths import Access
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.errors import FilesystemDenied, Revoked
from nyx_stream.guard import Decision, SandboxGuard, path_text
from nyx_stream.guard.decision import ApprovedDecision
from nyx_stream.policy import PathRule

T = TypeVar("T")

_OPENS = ("read", "write")
"""The operations that open a file; each takes one from the budget `opens`."""
AT_ONCE = 4
"""Operations of one plugin that run at the same time. The threads that run them take turns at the interpreter's lock,
and so does the event loop, which waits for each of them."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where to work: `path` below `root`, and the judge of what it leads to (`None` if no rule can refuse it).

    `given` is the path as the plugin gave it, fit to be shown to it.
    """

    root: Root
    path: str
    given: str
    judge: Judge | None


@dataclass(frozen=True, slots=True)
class _Step:
    """One path of an operation that the guard allowed by its text."""

    given: str
    prefix: str
    below: str
    decision: Decision


class _Turns:
    """The turns of one plugin. A semaphore is of one event loop; a capability may be used in several, one by one."""

    __slots__ = ("_loop", "_semaphore")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._semaphore = asyncio.Semaphore(AT_ONCE)

    def here(self) -> asyncio.Semaphore:
        """Returns those of the running loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._semaphore = loop, asyncio.Semaphore(AT_ONCE)
        return self._semaphore


def _in_thread(work: Callable[[], T], over: Callable[[], None]) -> asyncio.Future[T]:
    """Runs `work` in a thread of the loop's pool, unless its caller is cancelled before there is one for it.

    `over` is called when the thread is free, be the caller cancelled or not. Whoever awaits the outcome must not keep
    it: its error leads to the frame that awaits, and only a collection of garbage would end that.
    """
    wanted = True

    def run() -> T:
        if not wanted:
            raise InterruptedError
        return work()

    def look(outcome: asyncio.Future[T]) -> None:
        nonlocal wanted
        wanted = not outcome.cancelled()

    def end(running: asyncio.Future[T]) -> None:
        over()
        if not running.cancelled():
            running.exception()  # the outcome tells of it; where that was cancelled, nobody is to hear of it

    running = asyncio.get_running_loop().run_in_executor(None, run)
    running.add_done_callback(end)
    outcome = asyncio.shield(running)
    outcome.add_done_callback(look)
    return outcome


class FileGate:
    """The gate of one capability. `perform` is called on the event loop, `close` when nothing may pass any more."""

    __slots__ = ("_bench", "_closed", "_grounds", "_guard", "_lease", "_owner", "_turns")

    def __init__(
        self, guard: SandboxGuard, lease: Lease, bench: AccessChecker, above: "FileGate | None" = None
    ) -> None:
        self._guard = guard
        self._lease = lease
        self._bench = bench
        # What was handed on lies in the directories that were granted, whatever has their names by now.
        self._owner = above is None
        self._grounds: GrantedRoots = GrantedRoots() if above is None else above._grounds
        self._turns: _Turns = _Turns() if above is None else above._turns
        self._closed = False

    @property
    def ended(self) -> bool:
        """Whether nothing passes any more."""
        return self._closed or self._lease.ended

    def bind(self, prefix: str) -> None:
        """Opens a granted prefix now, so that the grant is the directory that stands there now."""
        if not self._closed:  # its plugin may have closed it; the policy goes on changing
            self._grounds.bind(prefix)

    def close(self) -> None:
        """Lets nothing pass any more."""
        self._closed = True
        if self._owner:
            self._grounds.close()

    def narrowed(self, prefixes: Sequence[str], mode: str) -> list[PathRule]:
        """Returns the rules for less. Raises `FilesystemDenied`, audited, for more than passes here, and `Revoked`."""
        rules = []
        for text in prefixes:
            if self.ended:
                raise self.error("narrow", text)
            verdict = self._guard.judge_path(text, mode)
            if not verdict.decision.allowed:
                self._guard.record("files", "narrow", text, verdict.decision)
                raise self._guard.path_error(verdict, "narrow", text, mode)
            rules.append(PathRule(verdict.path, "r" if mode == "r" else "rw"))
        return rules

    def error(self, action: str = "use", target: str = "") -> Revoked:
        """The error for an operation after the end of the lease, or after `close`."""
        if self._lease.ended:
            return self._lease.error(action, target)
        decision = Decision(False, None, "the files capability is closed")
        return self._guard.denial(Revoked, "files", action, target, decision)

    async def perform(
        self, action: str, access: Access, paths: Sequence[object], work: Callable[[Sequence[Site]], T]
    ) -> T:
        """Runs `work` in a thread if everything allows it, which is judged when its turn has come.

        Raises:
            Revoked: the lease has ended, or its budget is used up.
            FilesystemDenied: a rule or the place itself refuses; audited.
            OSError: what the system says about a path that is granted.
        """
        # The only reading of the plugin's path objects.
        texts = [path_text(path) for path in paths]
        target = " -> ".join(texts)
        turns = self._turns.here()
        await turns.acquire()
        result = await self._begin(action, access, texts, target, work, turns.release)
        if access == "read" and self.ended:
            raise self.error(action, target)
        return result

    def _begin(
        self,
        action: str,
        access: Access,
        texts: Sequence[str],
        target: str,
        work: Callable[[Sequence[Site]], T],
        over: Callable[[], None],
    ) -> asyncio.Future[T]:
        """Judges an operation whose turn has come, and has it run; `over` is called when the turn ends."""
        try:
            if self.ended:
                error = self.error(action, target)
                self._guard.record("files", action, target, Decision(False, None, error.reason))
                raise error
            steps = [self._decide(action, access, text) for text in texts]
            self._take(action, target, steps)
            if action in _OPENS:
                self._spend(action, target)
            return _in_thread(lambda: self._run(action, access, target, steps, work), over)
        except BaseException:
            over()
            raise

    def _take(self, action: str, target: str, steps: Sequence[_Step]) -> None:
        """Counts the operation where it was approved for once; one operation, whatever number of paths it has."""
        approved = (step.decision for step in steps if isinstance(step.decision, ApprovedDecision))
        for decision in {decision.ticket: decision for decision in approved}.values():
            taken = decision.use()
            if not taken.allowed:
                raise self._denied(action, target, taken)

    def _spend(self, action: str, target: str) -> None:
        try:
            self._lease.spend("opens")
        except Spent as spent:
            self._guard.record("files", action, target, Decision(False, None, spent.reason))
            raise self._lease.error(action, target, spent.reason) from spent

    def _decide(self, action: str, access: Access, text: str) -> _Step:
        mode = "r" if access == "read" else "rw"
        verdict = self._guard.judge_path(text, mode)
        if verdict.prefix is None or not verdict.decision.allowed:
            self._guard.record("files", action, text, verdict.decision)
            raise self._guard.path_error(verdict, action, text, mode)
        refusal = self._bench.refuses_text(verdict.path, access)
        if refusal is not None:
            raise self._denied(action, text, refusal)
        return _Step(text, verdict.prefix.prefix, verdict.below, verdict.decision)

    def _run(
        self, action: str, access: Access, target: str, steps: Sequence[_Step], work: Callable[[Sequence[Site]], T]
    ) -> T:
        # Of two paths, the one that a rule on trial speaks against is what the event tells of.
        decision = next((step.decision for step in steps if step.decision.reported), steps[-1].decision)
        try:
            with as_host(), self._grounds.use(*(step.prefix for step in steps)) as roots:
                sites = [
                    Site(root, step.below, step.given, self._bench.judge(step.prefix, access))
                    for root, step in zip(roots, steps, strict=True)
                ]
                return work(sites)
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
            decision = Decision(False, None, "the files capability is closed")
            raise self.error(action, target) from None
        finally:
            self._guard.record("files", action, target, decision)

    def _denied(self, action: str, target: str, decision: Decision) -> FilesystemDenied:
        self._guard.record("files", action, target, decision)
        return self._denial(action, target, decision)

    def _denial(self, action: str, target: str, decision: Decision) -> FilesystemDenied:
        return self._guard.denial(FilesystemDenied, "files", action, target, decision)
