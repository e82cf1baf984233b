"""The audit log: what one record costs whoever causes it, and how many reach the disk in a second.

The first is the CPU time of the calling thread: making the event and handing it over. Then, for each fsync policy, the
wall time from the first record until `close` has synced the file, with the writing thread at work beside; and from one
record until `flush` has confirmed it.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import get_args

from benchmarks.measure import Result, Row, Target
from benchmarks.timing import EMPTY, Budget, empty_call, interleave, once_each
from nyx_stream.audit import AuditLog
from nyx_stream.audit.log import Fsync
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.plugin_sandbox import SandboxPolicy

_DECISION = Decision(True, "GET https://api.met.no/v1/**", "allowed by the rule")
_EVENT = "1.4 µs of it are the nine fields of a frozen AuditEvent"
_LINE = "a line takes 5 µs of the writing thread, 1.1 of them for its hash, in turn with the thread that records"
_RECORDS = 60_000
"""Fewer than the log keeps in memory: none is dropped. A third in a quick run."""

_FLUSHES = 200
_FLUSH = "two turns of threads, one write, and at fsync each one sync"


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
        records = _RECORDS // 3 if budget.quick else _RECORDS
        policies = {policy: partial(_share, path, policy, records) for policy in get_args(Fsync)}
        disk = once_each(budget, policies, rounds=5 if budget.quick else 15)
        for policy, seconds in disk.items():
            claim = f"audit records to disk, fsync {policy}, closed"
            target = Target("/s", 100_000) if policy == "never" else None
            yield Row(claim, seconds, disk["never"] if target is None else None, target, _LINE)
        flush = once_each(budget, {policy: partial(_flush, path, policy) for policy in policies}, rounds=5)
        for policy, seconds in flush.items():
            yield Row(f"audit record until acknowledged, fsync {policy}", seconds, flush["never"], None, _FLUSH)


def _share(path: str, fsync: Fsync, records: int, _: int) -> float:
    return _record(path, records, time.perf_counter, whole=True, fsync=fsync) / records


def _flush(path: str, fsync: Fsync, _: int) -> float:
    """Seconds from recording one event until the log confirms it: a group of one, the dearest there is."""
    with closing(AuditLog.open(path, fsync=fsync)) as log:
        guard = SandboxGuard(SandboxPolicy.locked_down(), plugin="weather", audit=log.record)
        start = time.perf_counter()
        for _ in range(_FLUSHES):
            guard.record("http", "GET", "https://api.met.no/v1/forecast?lat=59.9", _DECISION)
            log.flush()
        return (time.perf_counter() - start) / _FLUSHES


def _record(path: str, count: int, clock: Callable[[], float], *, whole: bool, fsync: Fsync = "never") -> float:
    log = AuditLog.open(path, fsync=fsync)
    guard = SandboxGuard(SandboxPolicy.locked_down(), plugin="weather", audit=log.record)
    start = clock()
    for _ in range(count):
        guard.record("http", "GET", "https://api.met.no/v1/forecast?lat=59.9", _DECISION)
    taken = clock() - start
    log.close()
    return clock() - start if whole else taken
