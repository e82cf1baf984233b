"""Several sinks as one, each kept from the others and from the decision: one that raises is counted, and told once.

Knows nothing of what the sinks do.
"""

import inspect
import logging
import threading

from nyx_stream.audit.event import AuditEvent, AuditSink
from nyx_stream.text import escape

_log = logging.getLogger("nyx.audit")


class Isolated:
    """A sink around one that may fail: itself never raises. The first failure goes to the logger `nyx.audit`.

    Args:
        sink: called with each event, on the thread and in the task that caused it. It is not awaited.

    Raises:
        TypeError: `sink` is a coroutine function.
    """

    __slots__ = ("_counting", "_sink", "failed", "name")

    def __init__(self, sink: AuditSink) -> None:
        if inspect.iscoroutinefunction(sink) or inspect.iscoroutinefunction(getattr(sink, "__call__", None)):  # noqa: B004  # whether it is a coroutine function, not whether it is there
            raise TypeError(
                f"{_name(sink)} is a coroutine function, and a sink is called, not awaited: "
                "put the event into a queue that a task of yours empties"
            )
        self.name = _name(sink)
        """What the sink is called in messages."""
        self.failed = 0
        """Events that the sink did not take."""
        self._sink = sink
        self._counting = threading.Lock()

    def __call__(self, event: AuditEvent) -> None:
        """Hands an event on."""
        try:
            answer: object = self._sink(event)
        except Exception as error:
            self._failure(f"{type(error).__name__}: {error}")
            return
        if answer is not None and inspect.iscoroutine(answer):
            answer.close()
            self._failure("it returned a coroutine, which nobody awaits")

    def _failure(self, why: str) -> None:
        with self._counting:
            self.failed += 1
            first = self.failed == 1
        if first:
            _log.error(
                "audit sink %s did not take an event: %s; it is still called, and this is not told again",
                self.name,
                escape(why),
            )


class _FanOut:
    __slots__ = ("_sinks",)

    def __init__(self, sinks: tuple[AuditSink, ...]) -> None:
        self._sinks = sinks

    def __call__(self, event: AuditEvent) -> None:
        for sink in self._sinks:
            sink(event)


def fan_out(*sinks: AuditSink) -> AuditSink:
    """Returns one sink for all of them, in their order. What one raises reaches neither the caller nor the others.

    Raises:
        TypeError: one of them is a coroutine function.
    """
    return together(tuple(sink if isinstance(sink, Isolated) else Isolated(sink) for sink in sinks))


def together(sinks: tuple[AuditSink, ...]) -> AuditSink:
    """Returns one sink for those that never raise."""
    return sinks[0] if len(sinks) == 1 else _FanOut(sinks)


def _name(sink: object) -> str:
    kind = type(sink)
    name = getattr(sink, "__qualname__", f"{kind.__module__}.{kind.__qualname__}")
    return escape(str(name), 100)
