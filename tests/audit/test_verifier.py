"""Verification finds and names any record that was changed, removed, moved or cut off, within its stated limits."""

import random
from itertools import pairwise

import pytest

from nyx_stream.audit import AuditLog, read_log, verify
from nyx_stream.audit.chain import Position, link
from nyx_stream.audit.reader import LogReader
from tests.audit.sample_log import KEY


@pytest.fixture(params=[b"", KEY], ids=["no key", "key"])
def log(request, write):
    """A log of several segments, with and without a key."""
    return write(key=request.param)


def fault_of(log, **options):
    return verify(log.path, key=log.key, **options).fault


def test_an_untouched_log_verifies(log):
    """It has no fault, its last record is a seal, and its events are those that were recorded."""
    found = verify(log.path, key=log.key)
    assert found.fault is None
    assert found.sealed
    assert found.segments == len(log.files) > 2
    assert found.records == 40 + 2 * found.segments
    assert [event.time for event in read_log(log.path)] == list(range(40))


def test_any_changed_byte_is_located(log):
    """After one byte changed in any file, the fault names file and line."""
    rng = random.Random(1)
    for path in log.files:
        content = path.read_bytes()
        for offset in rng.sample(range(len(content) - 1), 60):
            changed = bytearray(content)
            changed[offset] ^= rng.randrange(1, 256)
            path.write_bytes(changed)
            fault = fault_of(log)
            assert fault is not None, (path, offset)
            assert (fault.path, fault.line) == (str(path), content[:offset].count(b"\n") + 1), offset
        path.write_bytes(content)
    assert fault_of(log) is None


def test_any_removed_record_is_located(log):
    """After a line was removed from any file, the fault names the record after the gap."""
    for path in log.files:
        lines = path.read_bytes().splitlines(keepends=True)
        for index in range(len(lines) - 1):
            path.write_bytes(b"".join(lines[:index] + lines[index + 1 :]))
            fault = fault_of(log)
            assert fault is not None
            assert (fault.path, fault.line) == (str(path), index + 1)
            assert index == 0 or "is missing before record" in fault.why
        path.write_bytes(b"".join(lines))


def test_records_out_of_order_or_repeated_are_found(log):
    """After two neighbours were swapped, or a line repeated, the fault names the first line that is out of place."""
    path = log.files[1]
    lines = path.read_bytes().splitlines(keepends=True)
    for index in range(1, len(lines) - 1):
        path.write_bytes(b"".join([*lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]]))
        assert fault_of(log).line == index + 1
        path.write_bytes(b"".join([*lines[: index + 1], *lines[index:]]))
        fault = fault_of(log)
        assert (fault.line, fault.path) == (index + 2, str(path))
        assert "out of order, or repeated" in fault.why


def test_a_sealed_segment_that_was_cut_is_found(log):
    """Cutting any number of lines off a segment other than the last removes its seal, which is found."""
    path = log.files[0]
    lines = path.read_bytes().splitlines(keepends=True)
    for index in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:index]))
        fault = fault_of(log)
        assert (fault.path, fault.line) == (str(path), index)
        assert "without its seal" in fault.why


def test_a_missing_segment_is_found(log):
    """A missing file is a fault, unless it is among the oldest and `archived` is set."""
    for path in log.files[:-1]:
        aside = path.rename(path.with_name("aside"))
        assert "is missing" in fault_of(log).why
        assert (fault_of(log, archived=True) is None) == (path == log.files[0] or path.name.endswith("000001"))
        aside.rename(path)
    for one, other in pairwise(log.files):
        one.rename(one.with_name("aside"))
        other.rename(one)
        one.with_name("aside").rename(other)
        assert fault_of(log, archived=True) is not None
        one.rename(one.with_name("aside"))
        other.rename(one)
        one.with_name("aside").rename(other)
    assert fault_of(log) is None


def test_only_a_published_head_reveals_a_cut_end(log):
    """Without its last records a log verifies but is not sealed; a published head shows that records are missing."""
    head = verify(log.path, key=log.key).head
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:-2]))
    found = verify(log.path, key=log.key)
    assert found.fault is None
    assert not found.sealed
    assert "no record has the published hash" in fault_of(log, head=head).why
    log.path.write_bytes(b"".join(lines)[:-1])
    found = verify(log.path, key=log.key)
    assert (found.fault, found.sealed, found.unfinished > 0) == (None, False, True)


def rewrite(log, key):
    """Rewrites the complete log with one target changed and a valid chain."""
    position = Position()
    for path in log.files:
        members = []
        for line in path.read_bytes().splitlines():
            text = line.split(b",", 2)[2].rpartition(b',"hash":')[0]
            if text.startswith(b'"time":') and b'"kind":"segment"' in text:
                previous = text.index(b'"previous":"') + 12
                text = text[:previous] + b"\0" * 64 + text[previous + 64 :]
            members.append(text.replace(b"/d/7", b"/d/0"))
        lines = []
        for text in members:
            done = text.replace(b"\0" * 64, position.head.hex().encode())
            line, position = link(position, [done], key)
            lines.append(line)
        path.write_bytes(b"".join(lines))


def test_a_key_or_a_published_head_reveals_a_rewritten_log(write):
    """Without a key anyone can compute a valid chain, and only a published head reveals it; with a key, it is found."""
    plain = write(name="plain.jsonl")
    published = verify(plain.path).head
    rewrite(plain, b"")
    assert verify(plain.path).fault is None
    assert "no record has the published hash" in verify(plain.path, head=published).fault.why
    keyed = write(key=KEY, name="keyed.jsonl")
    rewrite(keyed, b"")
    assert "its hash does not match" in verify(keyed.path, key=KEY).fault.why


def test_a_log_verifies_only_with_the_key_it_was_written_with(write):
    """A keyed log needs its key, and a log without a key is not accepted as a keyed one."""
    plain, keyed = write(name="plain.jsonl"), write(key=KEY, name="keyed.jsonl")
    assert "the chain has no key" in verify(plain.path, key=KEY).fault.why
    assert "the chain is keyed" in verify(keyed.path).fault.why
    assert "with another key" in verify(keyed.path, key=b"o" * 32).fault.why


def test_one_sealed_segment_verifies_alone(log):
    """The path of a sealed segment, with `archived`, verifies that segment alone."""
    for path in log.files[:-1]:
        found = verify(path, key=log.key, archived=True)
        assert (found.fault, found.sealed, found.segments) == (None, True, 1)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b'{"v":1,"seq":1}\n', b"\xff\xfe\n", b"nonsense"])
def test_a_file_that_is_not_a_log_has_a_fault(tmp_path, content):
    """Empty and foreign files are reported as faults, not raised."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    assert verify(path).fault is not None


def test_the_head_of_an_open_log_is_found_later(tmp_path):
    """A head read while the log is open is among the hashes of the finished log."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    head = log.head
    log.close()
    assert verify(path, head=head).fault is None
    with LogReader(str(path)) as lines:
        assert len(list(lines.lines())) == 2
