"""The log: nothing lost at close, whole lines whatever kills the process, a clear error from a bad file."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from nyx_stream.audit import AuditEvent, AuditLog, read_log
from nyx_stream.audit.line import to_line
from nyx_stream.errors import AuditError


def event(number: int) -> AuditEvent:
    return AuditEvent(float(number), "p", "files", "read", f"/data/{number}", True, "/data", "allowed", "guard")


async def test_close_loses_nothing(tmp_path):
    """Every event recorded before close is in the file after it, in order."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as log:
        for number in range(5000):
            log.record(event(number))
    assert list(read_log(path)) == [event(number) for number in range(5000)]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_many_threads_may_record(tmp_path):
    """Events of several threads are all kept, each thread's in its own order."""
    path = tmp_path / "audit.jsonl"

    def work(start: int) -> None:
        for number in range(start, start + 500):
            log.record(event(number))

    async with AuditLog.open(path) as log:
        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1000, 2000, 3000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    times = [e.time for e in read_log(path)]
    for start in (0, 1000, 2000, 3000):
        assert [t for t in times if start <= t < start + 1000] == [float(n) for n in range(start, start + 500)]


async def test_two_logs_share_a_file(tmp_path):
    """Two hosts may append to one file: every line stays whole."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as first, AuditLog.open(path) as second:
        for number in range(2000):
            first.record(event(number))
            second.record(event(number))
    assert len(list(read_log(path))) == 4000


async def test_reopening_removes_an_unfinished_line(tmp_path):
    """What a killed writer left of its last line is gone after the next open, the whole lines are kept."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(to_line(event(1)) + to_line(event(2))[:50])
    async with AuditLog.open(path) as log:
        log.record(event(3))
    assert list(read_log(path)) == [event(1), event(3)]


def test_a_file_that_is_no_log_is_not_touched(tmp_path):
    """A path given by mistake is an error and keeps its bytes."""
    path = tmp_path / "thesis.txt"
    path.write_bytes(b"chapter one\nno newline at the end")
    with pytest.raises(AuditError, match="no audit line; not touched"):
        AuditLog.open(path)
    assert path.read_bytes() == b"chapter one\nno newline at the end"


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: os.mkfifo(p), lambda p: p.symlink_to("/dev/null")])
def test_only_a_regular_file_holds_a_log(tmp_path, make):
    """A directory, a FIFO or a device is a clear error, and never blocks the opener."""
    path = tmp_path / "audit.jsonl"
    make(path)
    with pytest.raises(AuditError, match=r"audit log .*audit\.jsonl: cannot be opened"):
        AuditLog.open(path)


WRITER = """
import sys
from nyx_stream.audit import AuditEvent, AuditLog
log = AuditLog.open(sys.argv[1])
print("ready", flush=True)
n = 0
while True:
    n += 1
    log.record(AuditEvent(float(n), "p", "files", "read", "x" * 1500, True, None, "r", "guard"))
"""


def test_a_killed_process_leaves_whole_lines(tmp_path):
    """SIGKILL in the middle of writing leaves a file that reads line by line, and that opens again."""
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        while path.stat().st_size < 2_000_000:
            pass
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert sum(1 for _ in read_log(path)) > 1000
        AuditLog.open(path).close()
        assert path.read_bytes().endswith(b"\n")
        path.unlink()


FULL = """
import resource, signal, sys
from nyx_stream.audit import AuditEvent, AuditLog
from nyx_stream.errors import AuditError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
failures = []
log = AuditLog.open(sys.argv[1], capacity=100, on_failure=failures.append)
for n in range(1000):
    log.record(AuditEvent(float(n), "p", "files", "read", "x" * 50, True, None, "r", "guard"))
if sys.argv[2] == "recovers":
    while not failures:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    log.close()
except AuditError as error:
    print(len(failures), error.lost, error)
"""


def run_full(path, mode):
    return subprocess.run(
        [sys.executable, "-c", FULL, str(path), mode], capture_output=True, text=True, check=True, timeout=60
    )


def test_a_full_disk_is_an_error_at_close_with_the_count(tmp_path):
    """When the file can take no more, close says how many events were lost; the file ends in a whole line."""
    path = tmp_path / "audit.jsonl"
    done = run_full(path, "stays full")
    kept = len([event for event in read_log(path) if event.capability == "files"])
    failures, lost, text = done.stdout.split(maxsplit=2)
    assert failures == "1"
    assert int(lost) == 1000 - kept > 0
    assert "events were lost: " in text
    assert path.read_bytes().endswith(b"\n")
    assert "events wait in memory" in done.stderr


def test_a_log_that_recovers_tells_of_the_gap(tmp_path):
    """Events that waited are written after the disk has room again, with a count of the dropped."""
    path = tmp_path / "audit.jsonl"
    done = run_full(path, "recovers")
    events = list(read_log(path))
    lost = int(done.stdout.split()[1])
    assert len([e for e in events if e.capability == "files"]) == 1000 - lost
    gaps = [int(e.target.split()[0]) for e in events if e.action == "drop"]
    assert sum(gaps) == lost > 0


async def test_recording_after_close_is_counted_not_raised(tmp_path, caplog):
    """A sink never raises: an event after close is dropped, counted and said in the process log."""
    log = AuditLog.open(tmp_path / "audit.jsonl")
    await log.aclose()
    log.record(event(1))
    assert log.lost == 1
    assert "is closed" in caplog.text


async def test_closing_leaves_no_thread_and_no_descriptor(tmp_path):
    """A closed log is gone: its thread has ended, its descriptor is closed, and closing again is harmless."""
    before = psutil.Process().num_fds()
    log = AuditLog.open(tmp_path / "audit.jsonl")
    log.close()
    log.close()
    assert not [t for t in threading.enumerate() if t.name == "nyx-audit"]
    assert psutil.Process().num_fds() == before
