"""The audit log: the cost of a record for its caller, and how many records reach the disk in a second.

The first is the CPU time of the calling thread, which creates the event and queues it. Then, for each fsync policy: the
wall time from the first record until `close` has synced the file, while the writing thread runs; and from one record
until `flush` has confirmed it.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import get_args

from benchmarks.measure import Result, Row, Target
from benchmarks.timing import EMPTY, Budget, empty_call, interleave, once_each
from nyx_stream.audit import AuditLog, Fsync
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.plugin_sandbox import SandboxPolicy

_DECISION = Decision(True, "GET https://api.met.no/v1/**", "allowed by the rule")
_EVENT = "creating a frozen AuditEvent with nine fields takes 1.4 µs of it"
_LINE = "a line takes 5 µs in the writing thread, 1.1 of them for its hash; the two threads take turns"
_RECORDS = 60_000
"""Fewer than the log keeps in memory, so none is dropped. A quick run uses a third."""

_FLUSHES = 200
_FLUSH = "two thread switches, one write and, with fsync each, one sync"


def run(budget: Budget) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/audit.jsonl"
        times = interleave(
            budget,
            {
                "record": lambda count: _record(path, count, time.thread_time, until_closed=False),
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
    return _record(path, records, time.perf_counter, until_closed=True, fsync=fsync) / records


def _flush(path: str, fsync: Fsync, _: int) -> float:
    """Returns the seconds from recording one event until the log confirms it: a batch of one, the worst case."""
    with closing(AuditLog.open(path, fsync=fsync)) as log:
        guard = SandboxGuard(SandboxPolicy.locked_down(), plugin="weather", audit=log.record)
        start = time.perf_counter()
        for _ in range(_FLUSHES):
            guard.record("http", "GET", "https://api.met.no/v1/forecast?lat=59.9", _DECISION)
            log.flush()
        return (time.perf_counter() - start) / _FLUSHES


def _record(path: str, count: int, clock: Callable[[], float], *, until_closed: bool, fsync: Fsync = "never") -> float:
    log = AuditLog.open(path, fsync=fsync)
    guard = SandboxGuard(SandboxPolicy.locked_down(), plugin="weather", audit=log.record)
    start = clock()
    for _ in range(count):
        guard.record("http", "GET", "https://api.met.no/v1/forecast?lat=59.9", _DECISION)
    taken = clock() - start
    log.close()
    return clock() - start if until_closed else taken
