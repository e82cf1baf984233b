"""The log: nothing lost at close, one writer per file, and a clear error from a bad file."""

import os
import subprocess
import sys
import threading
from contextlib import closing

import psutil
import pytest

from nyx_stream.audit import AuditEvent, AuditLog, read_log, verify
from nyx_stream.errors import AuditError


def event(number: int) -> AuditEvent:
    return AuditEvent(float(number), "p", "files", "read", f"/data/{number}", True, "/data", "allowed", "guard")


async def test_close_loses_nothing(tmp_path):
    """Every event recorded before close is in the file afterwards, in order."""
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(path) as log:
        for number in range(5000):
            log.record(event(number))
    assert list(read_log(path)) == [event(number) for number in range(5000)]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_many_threads_may_record(tmp_path):
    """All events of several threads are kept, those of each thread in order."""
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


SECOND_WRITER = """
import sys
from nyx_stream.audit import AuditLog
from nyx_stream.errors import AuditError

try:
    AuditLog.open(sys.argv[1]).close()
except AuditError as error:
    raise SystemExit(str(error))
"""


@pytest.mark.parametrize("where", ["the same process", "another process"])
def test_a_log_has_one_writer(tmp_path, where):
    """A second writer is refused with advice and changes nothing. After the first has closed, it continues."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path, segment_bytes=4096)

    def refused():
        if where == "the same process":
            with pytest.raises(AuditError) as raised:
                AuditLog.open(path)
            return str(raised.value)
        command = [sys.executable, "-c", SECOND_WRITER, path]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    for number in range(40):  # rotated meanwhile
        log.record(event(number))
        log.flush()
        if number % 20 == 0:
            assert "another host or process is writing to this log; give each host its own log file" in refused()
    log.close()
    with closing(AuditLog.open(path)) as second:
        second.record(event(40))
    assert [each.time for each in read_log(path)] == list(range(41))
    assert (verify(path).fault, verify(path).sealed) == (None, True)


def test_a_file_that_is_not_a_log_is_not_changed(tmp_path):
    """The path of another file is an error, and the file keeps its content."""
    path = tmp_path / "thesis.txt"
    path.write_bytes(b"chapter one\nno newline at the end")
    with pytest.raises(AuditError, match="isn't an audit record; the file was not changed"):
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
    """After flush the events are in the file; flushing again without new events is harmless."""
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
    """A wrong option is a ValueError that names it, and no file is created."""
    with pytest.raises(ValueError, match="bytes" if "key" in options else next(iter(options))):
        AuditLog.open(tmp_path / "audit.jsonl", **options)
    assert list(tmp_path.iterdir()) == []


async def test_recording_after_close_is_counted_not_raised(tmp_path, caplog):
    """A sink never raises: an event after close is dropped, counted and logged."""
    log = AuditLog.open(tmp_path / "audit.jsonl")
    await log.aclose()
    log.record(event(1))
    assert log.lost == 1
    assert "is closed" in caplog.text


async def test_closing_leaves_no_thread_and_no_descriptor(tmp_path):
    """After close the thread has ended and the descriptors are closed; closing again is harmless."""
    before = psutil.Process().num_fds()
    log = AuditLog.open(tmp_path / "audit.jsonl")
    log.close()
    log.close()
    assert not [t for t in threading.enumerate() if t.name == "nyx-audit"]
    assert psutil.Process().num_fds() == before
