"""The audit log: what one record costs whoever causes it, and how many reach the disk in a second.

The first is the CPU time of the calling thread: making the event and handing it over. The second is wall time from the
first record until `close` has synced the file, with the writing thread at work beside.
"""

import tempfile
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import Result, Row, Target
from benchmarks.timing import EMPTY, Budget, empty_call, interleave, once_each
from nyx_stream.audit import AuditLog
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.plugin_sandbox import SandboxPolicy

_DECISION = Decision(True, "GET https://api.met.no/v1/**", "allowed by the rule")
_EVENT = "1.4 µs of it are the nine fields of a frozen AuditEvent"
_LINE = "escaping and encoding a line takes 7.5 µs of the writing thread, in turn with the thread that records"
_RECORDS = 60_000
"""Fewer than the log keeps in memory: none is dropped."""


def run(budget: Budget) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/audit.jsonl"
        times = interleave(
            budget,
            {
                "record": lambda count: _record(path, count, time.thread_time, whole=False),
                EMPTY: empty_call(),
            },
        )
        yield Row("audit record, cost to the caller", times["record"], times[EMPTY], Target("s", 2e-6), _EVENT)
        disk = once_each(
            budget,
            {"to disk": lambda _: _record(path, _RECORDS, time.perf_counter, whole=True) / _RECORDS},
            rounds=3 if budget.quick else 15,
        )
        yield Row("audit records to disk, synced", disk["to disk"], None, Target("/s", 100_000), _LINE)


def _record(path: str, count: int, clock: Callable[[], float], *, whole: bool) -> float:
    log = AuditLog.open(path)
    guard = SandboxGuard(SandboxPolicy.locked_down(), plugin="weather", audit=log.record)
    start = clock()
    for _ in range(count):
        guard.record("http", "GET", "https://api.met.no/v1/forecast?lat=59.9", _DECISION)
    taken = clock() - start
    log.close()
    return clock() - start if whole else taken
