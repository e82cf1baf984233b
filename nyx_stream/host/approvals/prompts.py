"""Asking the approver on behalf of one plugin: one question at a time, each once, and not too often.

A question is the host's: it stays open when the call that led to it is cancelled, because a person takes longer than a
call may. Knows neither policies nor what an answer does.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeAlias

from nyx_stream.attribution import as_host
from nyx_stream.policy.approval import Answer, Approval, Question

Approver: TypeAlias = Callable[[Question], Awaitable[Answer]]
"""A host's way to a decision. What it raises, and an answer that takes too long, is a no."""

OPEN = 4
"""Questions of one plugin that are open: one is put, the others wait for it."""

PER_MINUTE = 6
"""Questions of one plugin that are put within a minute."""

REST = 60.0
"""Seconds for which a no stands: the same question is not put again meanwhile."""

LONGEST = 10**9
"""Seconds that an answer holds for at most; as every duration."""

_log = logging.getLogger("nyx.host")


class ApprovalPrompts:
    """The questions of one plugin, by what they are about."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self._open: dict[object, asyncio.Task[Approval]] = {}
        self._put: deque[float] = deque(maxlen=PER_MINUTE)
        self._refused: dict[object, float] = {}

    def why_not(self, about: object) -> str | None:
        """Why no question about this can be put now, or `None`; one that is open already can be joined."""
        if about in self._open:
            return None
        now = self._clock()
        if now < self._refused.get(about, -inf):
            return f"it was refused less than {REST:g} s ago"
        if len(self._open) >= OPEN:
            return f"{OPEN} questions of this plugin are open already"
        if len(self._put) == PER_MINUTE and now - self._put[0] < 60:
            return f"the plugin asked {PER_MINUTE} times within a minute"
        return None

    async def join(self, about: object, put: Callable[[], Awaitable[Approval]]) -> Approval:
        """Returns what came of the question about this; `put` puts it, if it is not open yet.

        Cancelling this leaves the question open.
        """
        task = self._open.get(about)
        if task is None:
            self._put.append(self._clock())
            with as_host():
                task = asyncio.get_running_loop().create_task(self._run(about, put), name="nyx:approval")
            self._open[about] = task
        await asyncio.wait((task,))
        return Approval(False, "the plugin was stopped") if task.cancelled() else task.result()

    async def close(self) -> None:
        """Ends the open questions; returns when their approver has been left."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, about: object, put: Callable[[], Awaitable[Approval]]) -> Approval:
        try:
            async with self._turn:
                approval = await put()
            if not approval:
                self._refused[about] = self._clock() + REST
            return approval
        finally:
            del self._open[about]


async def answer_of(approver: Approver, question: Question, timeout: float) -> Answer:
    """Returns what the approver says; whatever goes wrong with it is a no."""
    task = asyncio.current_task()
    try:
        async with asyncio.timeout(timeout) as scope:
            answer = await approver(question)
    except TimeoutError as error:
        if scope.expired():
            return Answer.no(f"nobody answered within {timeout:g} s")
        return _failed(question, error)
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        return _failed(question, error)
    except Exception as error:
        return _failed(question, error)
    if not _is_sound(answer):
        _log.error("plugin %s: the approver answered %r, which is no Answer", question.plugin, answer)
        return Answer.no("the approver failed")
    return answer


def _failed(question: Question, error: BaseException) -> Answer:
    _log.error("plugin %s: the approver failed on %s %s", question.plugin, question.kind, question.rule, exc_info=error)
    return Answer.no("the approver failed")


def _is_sound(answer: object) -> bool:
    if type(answer) is not Answer or answer.verdict not in ("once", "until", "always", "no"):
        return False
    if type(answer.reason) is not str:
        return False
    if answer.verdict != "until":
        return answer.seconds is None
    return type(answer.seconds) in (int, float) and 0 < (answer.seconds or 0) < LONGEST
