"""The Job Object layer against a kernel32 that records calls and keeps jobs as Windows documents them."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace

import pytest

from nyx_core.sandbox.confinement import Confinement, Limit, Network, ResourceLimits, SandboxPolicy, confinement_for
from nyx_core.sandbox.report import LayerReport, LayerState
from nyx_core.windows.job_objects import JobObject, JobRequest
from nyx_core.windows.job_records import JobLimits, limits_record, ui_record
from nyx_core.windows.kernel32 import JOB_FUNCTIONS, MEANINGS, Kernel32, Win32Error, load_kernel32
from nyx_core.windows.platform import FileAccess
from tests.core.platforms.fake_windows import WORD, FakeWindows, Job

MINIMAL = confinement_for(SandboxPolicy.MINIMAL)
MIB = 1024 * 1024
ALONE = JobLimits(1, 128 * MIB, None)


def fallible() -> list[str]:
    """Every call that can fail, by name: all but the pseudo handle."""
    return [name for name, _, _ in JOB_FUNCTIONS]


def test_integer_types_have_the_widths_of_windows() -> None:
    """BOOL, DWORD and the information class are 4 bytes, handles and pointers a word, whatever C's long is
    here.
    """
    by_name = {name: (result, arguments) for name, result, arguments in JOB_FUNCTIONS}
    result, (handle, kind, pointer, length) = by_name["SetInformationJobObject"]
    assert [ctypes.sizeof(kind_) for kind_ in (result, kind, length)] == [4, 4, 4]
    assert ctypes.sizeof(handle) == ctypes.sizeof(pointer) == WORD


def test_the_job_is_complete_before_it_is_entered() -> None:
    """Create, limits, read back, restrictions, read back, and only then assign; nothing is closed
    afterwards.
    """
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


def test_the_job_is_kill_on_close_alone_limited_and_without_breakaway() -> None:
    """What is in force is what the guide says: one process, kill-on-close, a memory limit, no way out, no
    desktop.
    """
    system = FakeWindows(committed=10 * MIB)
    JobObject(system.kernel).apply(MINIMAL, ())
    (job,) = system.jobs.values()
    assert system.limits(job) == ALONE
    assert job.ui == ui_record(0xFF)


@pytest.mark.parametrize("call", fallible())
@pytest.mark.parametrize("code", [5, 8, 87, 31])
def test_every_failing_call_is_a_failure_that_kills_nobody(call: str, code: int) -> None:
    """A call that fails is told by name, code and meaning; an empty job is closed, an entered one never
    is.
    """
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
    """The process lives on in its job when asking about it fails, and the layer says that it does not
    hold.
    """
    system = FakeWindows()
    system.before_assigning = lambda system: system.failures.update(IsProcessInJob=6)
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert system.alive
    assert system.chain
    assert "CloseHandle" not in system.library.order


def test_a_system_that_forgets_limits_is_refused_before_the_job_is_entered() -> None:
    """Limits that do not read back end in a refusal, with the job closed and the process in none."""
    system = FakeWindows(forgets=True)
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert "did not keep: active_processes 1, process_memory 134217728, kill_on_close" in report.reason
    assert not system.chain
    assert not system.left_open


def test_repeating_finds_the_job_and_makes_no_other() -> None:
    """A process that is in a job at least as tight stays there: nothing is created, the report says why."""
    system = FakeWindows()
    layer = JobObject(system.kernel)
    layer.apply(MINIMAL, ())
    system.committed += 5 * MIB
    report = layer.apply(MINIMAL, ())
    assert report.state is LayerState.ACTIVE
    assert report.reason == "in a job at least as tight already"
    assert len(system.jobs) == 1


def test_the_limits_in_force_are_those_of_the_job_that_was_found() -> None:
    """A process that grew since is told the limit it has, not the one a new job would have."""
    system = FakeWindows(committed=300 * MIB)
    layer = JobObject(system.kernel)
    layer.apply(MINIMAL, ())
    system.committed += 50 * MIB
    memory = layer.apply(MINIMAL, ()).limits[0]
    assert (memory.name, memory.soft, memory.hard) == ("memory", 428 * MIB, 428 * MIB)


def test_the_loser_of_a_race_closes_an_empty_job_and_lives() -> None:
    """Another thread enters the same confinement first: this one drops its own empty job and finds the
    other.
    """
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
    """Eight threads that all have a complete job before any is entered: one wins, seven close theirs, none
    dies.
    """
    system = FakeWindows()
    everybody = threading.Barrier(8)
    reports: list[LayerReport] = []

    def together(system: FakeWindows) -> None:
        everybody.wait(10)

    system.before_assigning = together
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
    """If what came first is looser, the process still ends up in the job that was asked for, nested and
    alive.
    """
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


def test_inside_an_outer_job_the_restrictions_of_the_interface_are_given_up_openly() -> None:
    """A nested job may have none, so it is entered without, and the reason says so."""
    system = FakeWindows()
    system.enter_outer_job(Job())
    report = JobObject(system.kernel).apply(MINIMAL, ())
    (job,) = system.jobs.values()
    assert report.state is LayerState.ACTIVE
    assert "no user interface restrictions" in report.reason
    assert system.limits(job) == ALONE
    assert job.ui == ui_record(0)


def test_an_outer_job_that_admits_no_other_is_a_refusal() -> None:
    """Before Windows 8 a process has one job: the layer fails, and its own job is closed."""
    system = FakeWindows(nests=False)
    system.enter_outer_job(Job())
    report = JobObject(system.kernel).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert "ERROR_ACCESS_DENIED" in report.reason
    assert not system.left_open


def test_an_outer_job_with_breakaway_is_not_taken_for_ours() -> None:
    """A job from which children may break away is not tight, however low its limits are."""
    system = FakeWindows()
    system.enter_outer_job(Job(limits_record(replace(ALONE, breakaway=True), WORD)))
    JobObject(system.kernel).apply(MINIMAL, ())
    (job,) = system.jobs.values()
    assert job.entered


def test_probing_enters_no_job_and_leaves_none() -> None:
    """A survey makes a job, reads it back and closes it, and the process is where it was."""
    system = FakeWindows()
    report = JobObject(system.kernel).probe()
    assert report.state is LayerState.ACTIVE
    assert not system.chain
    assert not system.left_open


def test_without_kernel32_the_layer_is_unavailable() -> None:
    """Elsewhere than on Windows there is nothing to call, and both methods say so."""
    layer = JobObject(load_kernel32)
    assert layer.probe().state is LayerState.UNAVAILABLE
    assert "Windows only" in layer.apply(MINIMAL, ()).reason


def test_a_missing_function_is_unavailable() -> None:
    """A system without one of the calls gets a reason that names it."""
    system = FakeWindows()
    del system.library.functions["IsProcessInJob"]
    assert "IsProcessInJob" in JobObject(system.kernel).apply(MINIMAL, ()).reason


def test_errors_carry_code_and_meaning() -> None:
    """The error of a call is what GetLastError said, by number and by meaning."""
    system = FakeWindows(failures={"CreateJobObjectW": 8})
    kernel: Kernel32 = system.kernel()
    with pytest.raises(Win32Error, match=r"CreateJobObjectW: error 8, ERROR_NOT_ENOUGH_MEMORY") as caught:
        kernel.create_job()
    assert (caught.value.call, caught.value.code) == ("CreateJobObjectW", 8)


def test_a_process_above_its_memory_limit_keeps_what_it_has() -> None:
    """Use + limit, in whole pages, and the report says which; one below gets the limit literally."""
    above = JobRequest.of(MINIMAL, 300 * MIB + 1)
    below = JobRequest.of(MINIMAL, 100 * MIB)
    assert above.limits.process_memory == 428 * MIB
    assert below.limits.process_memory == 128 * MIB
    assert "use + limit" in above.reports[0].note
    assert "literal" in below.reports[0].note


def test_every_limit_asked_for_is_reported() -> None:
    """What a job cannot limit is told as unlimited, with the reason, and never dropped."""
    limits = ResourceLimits(cpu_seconds=Limit.of(7), file_size=Limit.of(1))
    wish = JobRequest.of(replace(MINIMAL, limits=limits), 0)
    seen = {report.name: (report.soft, report.note) for report in wish.reports}
    assert set(seen) == {"memory", "processes", "cpu_seconds", "open_files", "file_size", "core"}
    assert seen["open_files"] == (-1, "a Job Object has no such limit")
    assert wish.limits.process_seconds == 7


def test_subprocesses_are_counted_when_they_are_allowed() -> None:
    """With subprocess the job has the limit on processes, without it exactly one."""
    assert JobRequest.of(replace(MINIMAL, subprocess=True), 0).limits.active_processes == 50
    assert JobRequest.of(MINIMAL, 0).limits.active_processes == 1
    assert JobRequest.of(replace(MINIMAL, limits=ResourceLimits(processes=None)), 0).limits.active_processes == 1


def test_what_windows_cannot_close_is_named() -> None:
    """STRICT asks for more than a job can do: a layer says so instead of a report that is silent about it."""
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
    """Whatever else Windows does not do is named by its field."""
    wanted: Confinement = replace(MINIMAL, **asked)  # type: ignore[arg-type]
    assert next(iter(asked)) in FileAccess().apply(wanted, ()).reason
