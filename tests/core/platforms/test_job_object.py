"""The Job Object layer with a fake kernel32 that keeps jobs as Windows documents them."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace

import pytest

from nyx_core.sandbox.confinement import Confinement, Limit, Network, ResourceLimits, SandboxPolicy, confinement_for
from nyx_core.sandbox.report import LayerReport, LayerState
from nyx_core.windows.job_objects import JobObject, JobRequest
from nyx_core.windows.job_records import UI_RECORD, JobLimits, limits_record
from nyx_core.windows.kernel32 import JOB_FUNCTIONS, MEANINGS, Kernel32, Win32Error, load_kernel32
from nyx_core.windows.platform import FileAccess
from tests.core.platforms.fake_windows import WORD, FakeWindows, Job

MINIMAL = confinement_for(SandboxPolicy.MINIMAL)
MIB = 1024 * 1024
ALONE = JobLimits(1, 128 * MIB, None)


def fallible() -> list[str]:
    """The names of the calls that can fail."""
    return [name for name, _, _ in JOB_FUNCTIONS]


def test_integer_types_have_the_widths_of_windows() -> None:
    """BOOL, DWORD and the information class have 4 bytes on every system; handles and pointers a word."""
    by_name = {name: (result, arguments) for name, result, arguments in JOB_FUNCTIONS}
    result, (handle, kind, pointer, length) = by_name["SetInformationJobObject"]
    assert [ctypes.sizeof(kind_) for kind_ in (result, kind, length)] == [4, 4, 4]
    assert ctypes.sizeof(handle) == ctypes.sizeof(pointer) == WORD


def test_the_job_is_complete_before_it_is_entered() -> None:
    """The process is assigned after limits and restrictions are set and read back. Nothing is closed."""
    system = FakeWindows()
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.ACTIVE, report.reason
    order = [name for name in system.library.order if name != "GetCurrentProcess"]
    assert order[:8] == [
        "K32GetProcessMemoryInfo",
        "IsProcessInJob",
        "CreateJobObjectW",
        "SetInformationJobObject",
        "QueryInformationJobObject",
        "SetInformationJobObject",
        "QueryInformationJobObject",
        "AssignProcessToJobObject",
    ]
    assert "CloseHandle" not in order
    assert system.alive


def test_the_job_has_the_limits_of_the_guide() -> None:
    """The job allows one process, kills on close, limits memory, and allows no breakaway or desktop."""
    system = FakeWindows(committed=10 * MIB)
    JobObject(system.kernel).apply(MINIMAL, ())
    (job,) = system.jobs.values()
    assert system.limits(job) == ALONE
    assert job.ui == UI_RECORD.pack(0xFF)


@pytest.mark.parametrize("call", fallible())
@pytest.mark.parametrize("code", [5, 8, 87, 31])
def test_a_failing_call_is_reported_and_kills_no_process(call: str, code: int) -> None:
    """A failing call is reported with name, code and meaning. Only an empty job is closed."""
    system = FakeWindows(failures={call: code})
    if call == "CloseHandle":
        system.failures["AssignProcessToJobObject"] = code
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert not report.holds
    assert f"{call}: error {code}, {MEANINGS.get(code, 'see the system')[:20]}" in report.reason
    assert system.alive
    if call != "CloseHandle":
        assert all(job.entered for job in system.left_open)


def test_a_failure_after_entering_never_closes_the_job() -> None:
    """If a query fails after entering, the layer is unavailable and the process survives in its job."""
    system = FakeWindows()
    system.before_assigning = lambda system: system.failures.update(IsProcessInJob=6)
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert system.alive
    assert system.chain
    assert "CloseHandle" not in system.library.order


def test_a_system_that_forgets_limits_is_refused_before_the_job_is_entered() -> None:
    """If limits don't read back, the layer is unavailable, the job is closed and wasn't entered."""
    system = FakeWindows(forgets=True)
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert "did not keep: active_processes 1, process_memory 134217728, kill_on_close" in report.reason
    assert not system.chain
    assert not system.left_open


def test_repeating_finds_the_job_and_makes_no_other() -> None:
    """A process in a job at least as tight stays there, and no other job is made."""
    system = FakeWindows()
    layer = JobObject(system.kernel)
    layer.apply(MINIMAL, ())
    system.committed += 5 * MIB
    report = layer.apply(MINIMAL, ())
    assert report.state is LayerState.ACTIVE
    assert report.reason == "in a job at least as tight already"
    assert len(system.jobs) == 1


def test_the_limits_in_force_are_those_of_the_job_that_was_found() -> None:
    """The report has the limit of the existing job, not the one that a new job would have."""
    system = FakeWindows(committed=300 * MIB)
    layer = JobObject(system.kernel)
    layer.apply(MINIMAL, ())
    system.committed += 50 * MIB
    memory = layer.apply(MINIMAL, ()).limits[0]
    assert (memory.name, memory.soft, memory.hard) == ("memory", 428 * MIB, 428 * MIB)


def test_the_loser_of_a_race_closes_an_empty_job_and_lives() -> None:
    """If another thread enters the same confinement first, this one closes its empty job."""
    system = FakeWindows()

    def rival(system: FakeWindows) -> None:
        system.before_assigning = lambda system: None
        assert JobObject(system.kernel).apply(MINIMAL, ()).state is LayerState.ACTIVE

    system.before_assigning = rival
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.reason == "another thread entered a job at least as tight"
    assert system.alive
    assert [job.entered for job in system.left_open] == [True]
    assert len(system.jobs) == 2


def test_many_threads_at_once_end_in_one_job() -> None:
    """Of eight threads that have a complete job, one enters it, seven close theirs, and all survive."""
    system = FakeWindows()
    barrier = threading.Barrier(8)
    reports: list[LayerReport] = []

    def wait_for_all(system: FakeWindows) -> None:
        barrier.wait(10)

    system.before_assigning = wait_for_all
    threads = [
        threading.Thread(target=lambda: reports.append(JobObject(system.kernel).apply(MINIMAL, ()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {report.state for report in reports} == {LayerState.ACTIVE}
    assert system.alive
    assert len(system.jobs) == 8
    assert [job.entered for job in system.left_open] == [True]


def test_the_loser_of_a_race_against_something_looser_nests() -> None:
    """If the first job is looser, the process enters the requested job as a nested one."""
    system = FakeWindows()
    loose = Job(limits_record(JobLimits(None, None, None), WORD))

    def rival(system: FakeWindows) -> None:
        system.before_assigning = lambda system: None
        system.enter_outer_job(loose)

    system.before_assigning = rival
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.ACTIVE
    assert "nested" in report.reason
    assert system.alive
    assert [job.entered for job in system.left_open] == [True]


def test_a_nested_job_has_no_user_interface_restrictions() -> None:
    """A nested job has no user interface restrictions, and the reason says so."""
    system = FakeWindows()
    system.enter_outer_job(Job())
    report = JobObject(system.kernel).apply(MINIMAL, ())
    (job,) = system.jobs.values()
    assert report.state is LayerState.ACTIVE
    assert "no user interface restrictions" in report.reason
    assert system.limits(job) == ALONE
    assert job.ui == UI_RECORD.pack(0)


def test_an_outer_job_that_admits_no_other_is_a_refusal() -> None:
    """Before Windows 8 a process can have one job: the layer fails and closes its own job."""
    system = FakeWindows(nests=False)
    system.enter_outer_job(Job())
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert "ERROR_ACCESS_DENIED" in report.reason
    assert not system.left_open


def test_an_outer_job_with_breakaway_does_not_count() -> None:
    """A job that allows breakaway isn't tight, however low its limits."""
    system = FakeWindows()
    system.enter_outer_job(Job(limits_record(replace(ALONE, breakaway=True), WORD)))
    JobObject(system.kernel).apply(MINIMAL, ())
    (job,) = system.jobs.values()
    assert job.entered


def test_probing_enters_no_job_and_leaves_none() -> None:
    """A survey makes a job, reads it back and closes it, without entering it."""
    system = FakeWindows()
    report = JobObject(system.kernel).probe()
    assert report.state is LayerState.ACTIVE
    assert not system.chain
    assert not system.left_open


def test_without_kernel32_the_layer_is_unavailable() -> None:
    """Other systems don't have kernel32, and both methods report that."""
    layer = JobObject(load_kernel32)
    assert layer.probe().state is LayerState.UNAVAILABLE
    assert "Windows only" in layer.apply(MINIMAL, ()).reason


def test_a_missing_function_is_unavailable() -> None:
    """If a function is missing, the reason names it."""
    system = FakeWindows()
    del system.library.functions["IsProcessInJob"]
    assert "IsProcessInJob" in JobObject(system.kernel).apply(MINIMAL, ()).reason


def test_errors_carry_code_and_meaning() -> None:
    """An error has the number of GetLastError and its meaning."""
    system = FakeWindows(failures={"CreateJobObjectW": 8})
    kernel: Kernel32 = system.kernel()
    with pytest.raises(Win32Error, match=r"CreateJobObjectW: error 8, ERROR_NOT_ENOUGH_MEMORY") as caught:
        kernel.create_job()
    assert (caught.value.call, caught.value.code) == ("CreateJobObjectW", 8)


def test_a_process_above_its_memory_limit_keeps_what_it_has() -> None:
    """A process above the limit gets its use plus the limit in whole pages; one below gets the limit."""
    above = JobRequest.of(MINIMAL, 300 * MIB + 1)
    below = JobRequest.of(MINIMAL, 100 * MIB)
    assert above.limits.process_memory == 428 * MIB
    assert below.limits.process_memory == 128 * MIB
    assert "use + limit" in above.reports[0].note
    assert "literal" in below.reports[0].note


def test_every_requested_limit_is_reported() -> None:
    """A limit that a job doesn't have is reported as unlimited, with the reason."""
    limits = ResourceLimits(cpu_seconds=Limit.of(7), file_size=Limit.of(1))
    request = JobRequest.of(replace(MINIMAL, limits=limits), 0)
    seen = {report.name: (report.soft, report.note) for report in request.reports}
    assert set(seen) == {"memory", "processes", "cpu_seconds", "open_files", "file_size", "core"}
    assert seen["open_files"] == (-1, "a Job Object has no such limit")
    assert request.limits.process_seconds == 7


def test_subprocesses_are_counted_when_they_are_allowed() -> None:
    """With subprocess the job has the limit on processes, otherwise exactly one."""
    assert JobRequest.of(replace(MINIMAL, subprocess=True), 0).limits.active_processes == 50
    assert JobRequest.of(MINIMAL, 0).limits.active_processes == 1
    assert JobRequest.of(replace(MINIMAL, limits=ResourceLimits(processes=None)), 0).limits.active_processes == 1


def test_what_windows_cannot_close_is_named() -> None:
    """STRICT closes more than a job can, and the access layer reports it."""
    strict = FileAccess().apply(confinement_for(SandboxPolicy.STRICT), ())
    assert strict.state is LayerState.UNAVAILABLE
    assert "ipc, network, udp, writes" in strict.reason
    assert FileAccess().apply(MINIMAL, ()).state is LayerState.DISABLED
    ports = FileAccess().apply(replace(MINIMAL, network=Network.tcp(connect=(443,))), ())
    assert "udp" in ports.reason


@pytest.mark.parametrize(
    "asked",
    [{"keep_descriptors": (0,)}, {"new_session": True}, {"cgroup": True}],
    ids=lambda asked: next(iter(asked)),
)
def test_fields_without_a_counterpart_are_named(asked: dict[str, object]) -> None:
    """Other fields that Windows doesn't support are reported by name."""
    wanted: Confinement = replace(MINIMAL, **asked)  # type: ignore[arg-type]
    assert next(iter(asked)) in FileAccess().apply(wanted, ()).reason
