"""Job Objects for one process, as learn.microsoft.com describes them, behind the functions of kernel32."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nyx_core.windows.job_records import (
    EXTENDED_LIMITS,
    UI_RECORD,
    JobLimits,
    limits_record,
    limits_size,
    read_limits,
)
from nyx_core.windows.kernel32 import ACCESS_DENIED, Kernel32
from tests.core.platforms.recorded_library import RecordedLibrary

if TYPE_CHECKING:
    from collections.abc import Callable

WORD = ctypes.sizeof(ctypes.c_void_p)
ME = 2**64 - 1  # GetCurrentProcess answers the pseudo handle -1
INVALID_HANDLE = 6
NO_LIMITS = limits_record(JobLimits(None, None, None, kill_on_close=False), WORD)


@dataclass
class Job:
    """One job. `entered` is set once the process is in it."""

    limits: bytes = NO_LIMITS
    ui: bytes = UI_RECORD.pack(0)
    entered: bool = False
    closed: bool = False


@dataclass
class FakeWindows:
    """One process and its jobs, by handle.

    `failures` makes the call of that name fail with that error; `forgets` makes every job drop its limits; `nests` is
    whether a process may be in several jobs; `before_assigning` runs at the start of each assignment.
    """

    jobs: dict[int, Job] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    forgets: bool = False
    nests: bool = True
    committed: int = 0
    before_assigning: Callable[[FakeWindows], None] = lambda system: None
    alive: bool = True

    def __post_init__(self) -> None:
        self.chain: list[Job] = []
        self.latest = threading.local()  # GetLastError is one per thread
        self.library = RecordedLibrary(
            GetCurrentProcess=lambda: ME,
            CreateJobObjectW=lambda *a: self._try("CreateJobObjectW", self._create, *a),
            SetInformationJobObject=lambda *a: self._try("SetInformationJobObject", self._set, *a),
            QueryInformationJobObject=lambda *a: self._try("QueryInformationJobObject", self._query, *a),
            AssignProcessToJobObject=lambda *a: self._try("AssignProcessToJobObject", self._assign, *a),
            IsProcessInJob=lambda *a: self._try("IsProcessInJob", self._is_in, *a),
            K32GetProcessMemoryInfo=lambda *a: self._try("K32GetProcessMemoryInfo", self._memory, *a),
            CloseHandle=lambda *a: self._try("CloseHandle", self._close, *a),
            **dict.fromkeys(("CreateFileW", "GetFinalPathNameByHandleW", "GetFileType"), lambda *a: 0),
        )

    def kernel(self) -> Kernel32:
        """The kernel32 of this system, as the layer opens it."""
        return Kernel32(self.library, lambda: getattr(self.latest, "error", 0))

    def enter_outer_job(self, job: Job) -> None:
        """Put the process into a job that another process made."""
        job.entered = True
        self.chain.append(job)

    @property
    def left_open(self) -> list[Job]:
        """Jobs of this process whose handle is still open."""
        return [job for job in self.jobs.values() if not job.closed]

    def limits(self, job: Job) -> JobLimits:
        """The limits that were set on `job`."""
        return read_limits(job.limits, WORD)

    def _try(self, name: str, act: Callable[..., int], *arguments: int) -> int:
        if name in self.failures:
            self.latest.error = self.failures[name]
            return 0
        return act(*arguments)

    def _refuse(self, code: int) -> int:
        self.latest.error = code
        return 0

    def _create(self, attributes: int | None, name: str | None) -> int:
        if attributes is not None or name is not None:
            raise AssertionError("other processes could open or inherit the job")
        handle = 0x40 + 4 * len(self.jobs)
        self.jobs[handle] = Job()
        return handle

    def _job(self, handle: int | None) -> Job | None:
        if handle is None:
            return self.chain[-1] if self.chain else None
        job = self.jobs.get(handle)
        return None if job is None or job.closed else job

    def _set(self, handle: int, kind: int, address: int, size: int) -> int:
        job = self._job(handle)
        if job is None:
            return self._refuse(INVALID_HANDLE)
        record = ctypes.string_at(address, size)
        if len(record) != (limits_size(WORD) if kind == EXTENDED_LIMITS else 4):
            return self._refuse(24)
        if not self.forgets and kind == EXTENDED_LIMITS:
            job.limits = record
        elif not self.forgets:
            job.ui = record
        return 1

    def _query(self, handle: int | None, kind: int, address: int, size: int, returned: int | None) -> int:
        job = self._job(handle)
        if job is None:
            return self._refuse(INVALID_HANDLE)
        record = job.limits if kind == EXTENDED_LIMITS else job.ui
        if size != len(record):
            return self._refuse(24)
        ctypes.memmove(address, record, size)
        return 1

    def _assign(self, handle: int, process: int) -> int:
        self.before_assigning(self)
        job = self._job(handle)
        if job is None or process != ME:
            return self._refuse(INVALID_HANDLE)
        if self.chain and (not self.nests or job.ui != UI_RECORD.pack(0)):
            return self._refuse(ACCESS_DENIED)
        self.enter_outer_job(job)
        return 1

    def _is_in(self, process: int, handle: int | None, address: int) -> int:
        found = bool(self.chain) if handle is None else self._job(handle) in self.chain
        ctypes.c_int32.from_address(address).value = found
        return 1

    def _memory(self, process: int, address: int, size: int) -> int:
        if ctypes.c_uint32.from_address(address).value != size:
            return self._refuse(87)
        ctypes.c_size_t.from_address(address + size - WORD).value = self.committed
        return 1

    def _close(self, handle: int) -> int:
        job = self._job(handle)
        if job is None:
            return self._refuse(INVALID_HANDLE)
        job.closed = True
        if job.entered and self.limits(job).kill_on_close:
            self.alive = False
        return 1
