"""The limits of a Job Object, as values and as the records of the Windows API.

Source: winnt.h and learn.microsoft.com, `JOBOBJECT_EXTENDED_LIMIT_INFORMATION` and the structures in it.
Windows aligns `LARGE_INTEGER` to 8 bytes on 32-bit systems too, so the layouts differ only in the width of `SIZE_T`
and in padding. `word` is that width in bytes: 4 or 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

LIMIT_PROCESS_TIME = 0x0002
LIMIT_ACTIVE_PROCESS = 0x0008
LIMIT_PROCESS_MEMORY = 0x0100
LIMIT_BREAKAWAY_OK = 0x0800
LIMIT_SILENT_BREAKAWAY_OK = 0x1000
LIMIT_KILL_ON_JOB_CLOSE = 0x2000

# JOBOBJECTINFOCLASS
BASIC_UI_RESTRICTIONS = 4
EXTENDED_LIMITS = 9

UI_RESTRICTIONS = 0xFF
"""Every restriction of winnt.h on the user interface (JOB_OBJECT_UILIMIT_ALL): handles, reading and writing the
clipboard, system parameters, display settings, global atoms, desktops and logging off.
"""

TICKS = 10_000_000  # PerProcessUserTimeLimit counts 100 ns
MAX_TICKS = (1 << 63) - 1
PAGE = 4096  # a job rounds memory limits to pages of 4 KiB on every processor

# PerProcessUserTimeLimit PerJobUserTimeLimit LimitFlags MinimumWorkingSetSize MaximumWorkingSetSize
# ActiveProcessLimit Affinity PriorityClass SchedulingClass, then six IO_COUNTERS, then ProcessMemoryLimit
# JobMemoryLimit PeakProcessMemoryUsed PeakJobMemoryUsed.
_EXTENDED = {4: struct.Struct("<qqIIIIIII4x6Q4I"), 8: struct.Struct("<qqI4xQQI4xQII6Q4Q")}
UI_RECORD = struct.Struct("<I")  # JOBOBJECT_BASIC_UI_RESTRICTIONS
# cb PageFaultCount, then nine SIZE_T of which the last is PrivateUsage
_MEMORY = {4: struct.Struct("<II9I"), 8: struct.Struct("<II9Q")}


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Limits of a job. `None` means unlimited.

    Attributes:
        active_processes: processes that may be in the job at once; with 1 the process can't start another.
        process_memory: bytes that one process may commit.
        process_seconds: user-mode processor seconds of one process.
        kill_on_close: closing the last handle kills every process in the job.
        breakaway: a child may leave the job.
    """

    active_processes: int | None
    process_memory: int | None
    process_seconds: int | None
    kill_on_close: bool = True
    breakaway: bool = False

    @property
    def flags(self) -> int:
        """`LimitFlags`: which limits are in force."""
        return (
            (LIMIT_ACTIVE_PROCESS if self.active_processes is not None else 0)
            | (LIMIT_PROCESS_MEMORY if self.process_memory is not None else 0)
            | (LIMIT_PROCESS_TIME if self.process_seconds is not None else 0)
            | (LIMIT_KILL_ON_JOB_CLOSE if self.kill_on_close else 0)
            | (LIMIT_BREAKAWAY_OK if self.breakaway else 0)
        )

    def lacks(self, asked: JobLimits) -> tuple[str, ...]:
        """Names and values of `asked` that these limits don't enforce; empty if they are at least as tight."""
        missing = {
            f"active_processes {asked.active_processes}": not _within(self.active_processes, asked.active_processes),
            f"process_memory {asked.process_memory}": not _within(self.process_memory, asked.process_memory),
            f"process_seconds {asked.process_seconds}": not _within(self.process_seconds, asked.process_seconds),
            "kill_on_close": asked.kill_on_close and not self.kill_on_close,
            "no breakaway": self.breakaway and not asked.breakaway,
        }
        return tuple(name for name, is_missing in missing.items() if is_missing)


def _within(found: int | None, asked: int | None) -> bool:
    return asked is None or (found is not None and found <= asked)


def limits_record(limits: JobLimits, word: int) -> bytes:
    """A `JOBOBJECT_EXTENDED_LIMIT_INFORMATION`: 112 bytes if `word` is 4, 144 if it is 8.

    A value that is too large for its field is replaced by the largest that fits, which is tighter.
    """
    ticks = min((limits.process_seconds or 0) * TICKS, MAX_TICKS)
    active = min(limits.active_processes or 0, 0xFFFF_FFFF)
    memory = min(limits.process_memory or 0, (1 << 8 * word) - 1)
    return _EXTENDED[word].pack(ticks, 0, limits.flags, 0, 0, active, 0, 0, 0, *(0,) * 6, memory, 0, 0, 0)


def limits_size(word: int) -> int:
    """Size in bytes of the record that `read_limits` takes."""
    return _EXTENDED[word].size


def read_limits(record: bytes | bytearray, word: int) -> JobLimits:
    """The limits in a `JOBOBJECT_EXTENDED_LIMIT_INFORMATION`; values without their flag are ignored."""
    fields = _EXTENDED[word].unpack(record)
    flags = fields[2]
    return JobLimits(
        active_processes=fields[5] if flags & LIMIT_ACTIVE_PROCESS else None,
        process_memory=fields[15] if flags & LIMIT_PROCESS_MEMORY else None,
        process_seconds=fields[0] // TICKS if flags & LIMIT_PROCESS_TIME else None,
        kill_on_close=bool(flags & LIMIT_KILL_ON_JOB_CLOSE),
        breakaway=bool(flags & (LIMIT_BREAKAWAY_OK | LIMIT_SILENT_BREAKAWAY_OK)),
    )


def memory_record(word: int) -> bytearray:
    """An empty `PROCESS_MEMORY_COUNTERS_EX` with its size in the first field: 44 bytes if `word` is 4, else 80."""
    layout = _MEMORY[word]
    return bytearray(layout.pack(layout.size, *(0,) * 10))


def read_committed(record: bytes | bytearray, word: int) -> int:
    """Bytes that the process has committed, from a `PROCESS_MEMORY_COUNTERS_EX`.

    `PagefileUsage` and `PrivateUsage` are the same value, but the first is zero on Windows 7, the second under Wine 8.
    """
    fields = _MEMORY[word].unpack(record)
    return int(max(fields[8], fields[10]))
