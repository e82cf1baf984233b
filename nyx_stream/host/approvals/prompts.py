"""Puts the questions of one plugin to the approver: one at a time, each question once, with a rate limit.

A question belongs to the host. It stays open when the call that led to it is cancelled, because a person may take
longer than a call.
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
"""Decides for the host. An exception and a timeout count as a refusal."""

MAX_OPEN = 4
"""Open questions of one plugin: one is with the approver, the others are queued."""

MAX_PER_MINUTE = 6
"""Questions of one plugin within a minute."""

REFUSAL_SECONDS = 60.0
"""Seconds for which a refusal holds: the same question isn't put again meanwhile."""

MAX_ANSWER_SECONDS = 10**9
"""Seconds for which an answer can hold, as for every duration."""

_log = logging.getLogger("nyx.host")


class ApprovalPrompts:
    """The questions of one plugin, by their subjects."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asking = asyncio.Lock()
        self._open: dict[object, asyncio.Task[Approval]] = {}
        self._recent: deque[float] = deque(maxlen=MAX_PER_MINUTE)
        self._refused_until: dict[object, float] = {}

    def refusal(self, subject: object) -> str | None:
        """Returns why no question on `subject` can be put now, or `None`. An open question can be joined."""
        if subject in self._open:
            return None
        now = self._clock()
        if now < self._refused_until.get(subject, -inf):
            return f"it was refused less than {REFUSAL_SECONDS:g} s ago"
        if len(self._open) >= MAX_OPEN:
            return f"{MAX_OPEN} questions of this plugin are open already"
        if len(self._recent) == MAX_PER_MINUTE and now - self._recent[0] < 60:
            return f"the plugin asked {MAX_PER_MINUTE} times within a minute"
        return None

    async def ask(self, subject: object, ask_approver: Callable[[], Awaitable[Approval]]) -> Approval:
        """Returns the outcome of the question on `subject`; calls `ask_approver` if the question isn't open yet.

        Cancelling this leaves the question open.
        """
        task = self._open.get(subject)
        if task is None:
            self._recent.append(self._clock())
            with as_host():
                task = asyncio.get_running_loop().create_task(self._run(subject, ask_approver), name="nyx:approval")
            self._open[subject] = task
        await asyncio.wait((task,))
        return Approval(False, "the plugin was stopped") if task.cancelled() else task.result()

    async def close(self) -> None:
        """Cancels the open questions; returns when their tasks have ended."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, subject: object, ask_approver: Callable[[], Awaitable[Approval]]) -> Approval:
        try:
            async with self._asking:
                approval = await ask_approver()
            if not approval:
                self._refused_until[subject] = self._clock() + REFUSAL_SECONDS
            return approval
        finally:
            del self._open[subject]


async def get_answer(approver: Approver, question: Question, timeout: float) -> Answer:
    """Returns the approver's answer; a refusal if the approver raises, is late, or returns something else."""
    task = asyncio.current_task()
    try:
        async with asyncio.timeout(timeout) as scope:
            answer = await approver(question)
    except TimeoutError as error:
        if scope.expired():
            return Answer.no(f"no answer within {timeout:g} s")
        return _failed(question, error)
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        return _failed(question, error)
    except Exception as error:
        return _failed(question, error)
    if not _is_valid(answer):
        _log.error("plugin %s: the approver returned %r instead of an Answer", question.plugin, answer)
        return Answer.no("the approver failed")
    return answer


def _failed(question: Question, error: BaseException) -> Answer:
    _log.error("plugin %s: the approver failed on %s %s", question.plugin, question.kind, question.rule, exc_info=error)
    return Answer.no("the approver failed")


def _is_valid(answer: object) -> bool:
    if type(answer) is not Answer or answer.verdict not in ("once", "until", "always", "no"):
        return False
    if type(answer.reason) is not str:
        return False
    if answer.verdict != "until":
        return answer.seconds is None
    return type(answer.seconds) in (int, float) and 0 < (answer.seconds or 0) < MAX_ANSWER_SECONDS
