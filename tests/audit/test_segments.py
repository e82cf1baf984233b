"""Segments: sealed and renamed when full, continued by whoever comes next, repaired, and never lost in silence."""

import os
import subprocess
import sys
import threading

import pytest

from nyx_stream.audit import AuditLog, read_log, verify
from nyx_stream.errors import AuditError
from tests.audit.written import KEY, event, write_log


def times(path):
    return [one.time for one in read_log(path) if one.kind != "log"]


def notices(path):
    return [one.action for one in read_log(path) if one.kind == "log"]


def test_a_full_segment_is_sealed_and_the_chain_goes_on(tmp_path):
    """Files are numbered in order, end in a seal, have their size, and verify as one chain."""
    log = write_log(tmp_path / "audit.jsonl")
    names = [path.name for path in log.files]
    assert names == [*(f"audit.jsonl.{number:06d}" for number in range(1, len(names))), "audit.jsonl"]
    for path in log.files[:-1]:
        assert 4096 <= path.stat().st_size < 6000
        assert path.stat().st_mode & 0o777 == 0o600
        assert b'"kind":"seal"' in path.read_bytes().splitlines()[-1]


@pytest.mark.parametrize("key", [b"", KEY])
def test_a_reopened_log_goes_on_where_it_was(tmp_path, key):
    """Closing and opening again, any number of times, is one chain."""
    path = tmp_path / "audit.jsonl"
    for number in range(30):
        log = AuditLog.open(path, key=key, segment_bytes=4096)
        log.record(event(number))
        log.close()
    assert verify(path, key=key).fault is None
    assert verify(path, key=key).segments > 2
    assert times(path) == list(range(30))


def test_a_log_is_not_mixed_with_another_key(tmp_path):
    """A keyed log opens with its key only, and one without a key opens without one only; the file stays as it is."""
    for given, wrong in ((KEY, b""), (KEY, b"o" * 32), (b"", KEY)):
        log = write_log(tmp_path / f"{len(given)}-{len(wrong)}.jsonl", given)
        before = log.path.read_bytes()
        with pytest.raises(AuditError, match=r"is written with.* key.*; not touched"):
            AuditLog.open(log.path, key=wrong)
        assert log.path.read_bytes() == before


def test_two_logs_rotate_one_file(tmp_path):
    """Two writers with small segments leave one chain, whole and verified."""
    path = tmp_path / "audit.jsonl"
    logs = [AuditLog.open(path, segment_bytes=8192) for _ in range(2)]

    def work(log, start):
        for number in range(start, start + 300):
            log.record(event(number))
            if number % 10 == 0:
                log.flush()

    threads = [threading.Thread(target=work, args=(log, 1000 * place)) for place, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    assert verify(path).fault is None
    assert verify(path).segments > 4
    assert sorted(times(path)) == [*range(300), *range(1000, 1300)]
    assert notices(path) == []


@pytest.mark.parametrize("cut", ["in the last line", "in the first line", "NUL after it"])
def test_an_unfinished_last_line_is_repaired_and_said(tmp_path, cut):
    """Whatever a killed writer left of its last line is gone after the next opening; a record says how much it was."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    log.record(event(1))
    log.close()
    whole = path.read_bytes()
    first, rest = whole.index(b"\n") + 1, len(whole) - len(whole.splitlines(keepends=True)[-1])
    for place in {
        "in the last line": range(rest + 1, len(whole)),
        "in the first line": range(1, first),
        "NUL after it": range(rest, len(whole), 7),
    }[cut]:
        path.write_bytes(whole[:place] + (b"\0" * 100 if cut.startswith("NUL") else b""))
        log = AuditLog.open(path)
        log.record(event(2))
        log.close()
        assert verify(path).fault is None
        assert notices(path) == ["repair"]
        assert times(path) == ([2] if cut == "in the first line" else [1, 2])


def test_a_writer_killed_between_two_segments_is_continued(tmp_path):
    """The full file was renamed and no new one made: the next opening goes on from the sealed one."""
    path = tmp_path / "audit.jsonl"
    log = write_log(path)
    path.unlink()
    AuditLog.open(path).close()
    assert verify(path).fault is None
    assert verify(path).segments == len(log.files)
    path.unlink()
    assert verify(path).fault is None
    assert times(path)


def test_a_log_renamed_by_somebody_else_goes_on_under_its_name(tmp_path):
    """A running log whose file was renamed or deleted starts another; the chain shows what is not there."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    log.record(event(1))
    log.flush()
    path.rename(tmp_path / "audit.jsonl.000001")
    log.record(event(2))
    log.flush()
    assert times(path) == [1, 2]
    assert "without its seal" in verify(path).fault.why
    (tmp_path / "audit.jsonl.000001").unlink()
    assert "this is segment 2, segment 1 is missing" in verify(path).fault.why
    log.close()


def test_records_cut_off_under_a_running_log_are_told(tmp_path):
    """Who shortens the file of a running log is found: a record says so, and the chain has a gap."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    for number in range(10):
        log.record(event(number))
    log.flush()
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, len(b"".join(lines[:5])))
    log.record(event(10))
    log.close()
    assert notices(path) == ["cut"]
    assert "records 6 to 11 are missing before record 12" in verify(path).fault.why


def test_a_name_that_is_taken_stops_no_record(tmp_path, caplog):
    """A file in the way of a sealed segment is left alone: events go on, the failure is told and recorded."""
    path = tmp_path / "audit.jsonl"
    told = []
    log = AuditLog.open(path, segment_bytes=4096, on_failure=told.append)
    taken = tmp_path / "audit.jsonl.000001"
    taken.write_bytes(b"mine")
    for number in range(40):
        log.record(event(number))
        log.flush()
    log.close()
    assert taken.read_bytes() == b"mine"
    assert isinstance(told[0], FileExistsError)
    assert "the segment grows beyond its size" in caplog.text
    taken.unlink()
    assert times(path) == list(range(40))
    assert "rotate" in notices(path)
    assert verify(path).fault is None


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "rb")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a file has one log there, and no lock")
def test_a_lock_that_is_not_let_go_is_no_silent_wait(tmp_path, monkeypatch):
    """A process that keeps the file locked makes flush fail with the reason; the events are kept until it ends."""
    monkeypatch.setattr("nyx_stream.audit.locking.PATIENCE", 0.05)
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        log.record(event(1))
        with pytest.raises(AuditError, match="another process keeps the audit log locked"):
            log.flush()
        holder.stdin.close()
        holder.wait()
    log.close()
    assert times(path) == [1]
