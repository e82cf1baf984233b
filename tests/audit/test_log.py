"""The log: nothing lost at close, whole lines whatever kills the process, a clear error from a bad file."""

import os
import threading

import psutil
import pytest

from nyx_stream.audit import AuditEvent, AuditLog, read_log, verify
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
    assert verify(path).fault is None


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


async def test_flush_confirms_what_was_recorded_before(tmp_path):
    """After flush, the events are in the file; a second flush with nothing new is harmless."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as log:
        for number in range(1500):
            log.record(event(number))
            if number % 500 == 0:
                await log.aflush()
                assert len(list(read_log(path))) == number + 1
        log.flush()
        log.flush()
        assert len(list(read_log(path))) == 1500
        assert verify(path, head=log.head).fault is None
    with pytest.raises(AuditError, match="is closed"):
        log.flush()


@pytest.mark.parametrize("options", [{"key": b"short"}, {"segment_bytes": 10}, {"capacity": 0}, {"sync_interval": 0}])
def test_an_option_out_of_range_is_refused(tmp_path, options):
    """A wrong option is a ValueError, and no file is made."""
    with pytest.raises(ValueError, match="bytes"):
        AuditLog.open(tmp_path / "audit.jsonl", **options)
    assert list(tmp_path.iterdir()) == []


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
