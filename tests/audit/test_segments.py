"""Segments: sealed and renamed when full, continued by the next writer, repaired, and never lost silently."""

import os

import pytest

from nyx_stream.audit import AuditLog, read_log, verify
from nyx_stream.errors import AuditError
from tests.audit.sample_log import KEY, event, write_log


def times(path):
    return [each.time for each in read_log(path) if each.kind != "log"]


def notices(path):
    return [each.action for each in read_log(path) if each.kind == "log"]


def test_a_full_segment_is_sealed_and_the_chain_continues(tmp_path):
    """Files are numbered in order, have the configured size and end with a seal."""
    log = write_log(tmp_path / "audit.jsonl")
    names = [path.name for path in log.files]
    assert names == [*(f"audit.jsonl.{number:06d}" for number in range(1, len(names))), "audit.jsonl"]
    for path in log.files[:-1]:
        assert 4096 <= path.stat().st_size < 6000
        assert path.stat().st_mode & 0o777 == 0o600
        assert b'"kind":"seal"' in path.read_bytes().splitlines()[-1]


@pytest.mark.parametrize("key", [b"", KEY])
def test_a_reopened_log_continues_its_chain(tmp_path, key):
    """A log that was closed and opened many times is one chain."""
    path = tmp_path / "audit.jsonl"
    for number in range(30):
        log = AuditLog.open(path, key=key, segment_bytes=4096)
        log.record(event(number))
        log.close()
    assert verify(path, key=key).fault is None
    assert verify(path, key=key).segments > 2
    assert times(path) == list(range(30))


def test_a_log_opens_only_with_its_own_key(tmp_path):
    """Another key, a missing key, or a key for a log without one is an error, and the file is not changed."""
    for given, wrong in ((KEY, b""), (KEY, b"o" * 32), (b"", KEY)):
        log = write_log(tmp_path / f"{len(given)}-{len(wrong)}.jsonl", given)
        before = log.path.read_bytes()
        with pytest.raises(AuditError, match=r"the log was written with.* key.*; the file was not changed"):
            AuditLog.open(log.path, key=wrong)
        assert log.path.read_bytes() == before


@pytest.mark.parametrize("cut", ["in the last line", "in the first line", "NUL after it"])
def test_an_unfinished_last_line_is_repaired_and_reported(tmp_path, cut):
    """The next opening removes the unfinished last line of a killed writer, and a record says how long it was."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    log.record(event(1))
    log.close()
    content = path.read_bytes()
    first, rest = content.index(b"\n") + 1, len(content) - len(content.splitlines(keepends=True)[-1])
    for length in {
        "in the last line": range(rest + 1, len(content)),
        "in the first line": range(1, first),
        "NUL after it": range(rest, len(content), 7),
    }[cut]:
        path.write_bytes(content[:length] + (b"\0" * 100 if cut.startswith("NUL") else b""))
        log = AuditLog.open(path)
        log.record(event(2))
        log.close()
        assert verify(path).fault is None
        assert notices(path) == ["repair"]
        assert times(path) == ([2] if cut == "in the first line" else [1, 2])


def test_a_writer_killed_between_two_segments_is_continued(tmp_path):
    """If the full file was renamed and no new one created, the next opening continues from the sealed one."""
    path = tmp_path / "audit.jsonl"
    log = write_log(path)
    path.unlink()
    AuditLog.open(path).close()
    assert verify(path).fault is None
    assert verify(path).segments == len(log.files)
    path.unlink()
    assert verify(path).fault is None
    assert times(path)


def test_a_log_whose_file_was_renamed_continues_at_its_path(tmp_path):
    """An open log whose file was renamed or deleted starts another one; the chain shows what is missing."""
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
    assert "this is segment 2, but segment 1 is missing" in verify(path).fault.why
    log.close()


def test_records_cut_off_under_an_open_log_are_reported(tmp_path):
    """Shortening the file of an open log leaves a record that says so, and a gap in the chain."""
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


def test_a_file_in_the_way_of_a_sealed_segment_loses_no_record(tmp_path, caplog):
    """The file is not overwritten, events are still written, and the failure is reported and recorded."""
    path = tmp_path / "audit.jsonl"
    failures = []
    log = AuditLog.open(path, segment_bytes=4096, on_failure=failures.append)
    taken = tmp_path / "audit.jsonl.000001"
    taken.write_bytes(b"mine")
    for number in range(40):
        log.record(event(number))
        log.flush()
    log.close()
    assert taken.read_bytes() == b"mine"
    assert isinstance(failures[0], FileExistsError)
    assert "the segment grows beyond its size" in caplog.text
    taken.unlink()
    assert times(path) == list(range(40))
    assert "rotate" in notices(path)
    assert verify(path).fault is None
