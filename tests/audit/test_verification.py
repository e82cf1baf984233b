"""Verifying: any record changed, removed, moved or cut off is found and named; what is beyond it is shown to be."""

import random
from itertools import pairwise

import pytest

from nyx_stream.audit import AuditLog, read_log, verify
from nyx_stream.audit.chain import Position, link
from nyx_stream.audit.reading import read_lines
from tests.audit.written import KEY


@pytest.fixture(params=[b"", KEY], ids=["no key", "key"])
def log(request, write):
    """A log of several segments, with and without a key."""
    return write(key=request.param)


def fault_of(log, **options):
    return verify(log.path, key=log.key, **options).fault


def test_what_was_written_verifies(log):
    """An untouched log has no fault; its last record is a seal; its events are those recorded."""
    found = verify(log.path, key=log.key)
    assert found.fault is None
    assert found.sealed
    assert found.segments == len(log.files) > 2
    assert found.records == 40 + 2 * found.segments
    assert [event.time for event in read_log(log.path)] == list(range(40))


def test_any_changed_byte_is_found_where_it_is(log):
    """One byte changed in any file: the fault names its file and line."""
    draw = random.Random(1)
    for path in log.files:
        whole = path.read_bytes()
        for place in draw.sample(range(len(whole) - 1), 60):
            changed = bytearray(whole)
            changed[place] ^= draw.randrange(1, 256)
            path.write_bytes(changed)
            fault = fault_of(log)
            assert fault is not None, (path, place)
            assert (fault.path, fault.line) == (str(path), whole[:place].count(b"\n") + 1), place
        path.write_bytes(whole)
    assert fault_of(log) is None


def test_any_removed_record_is_found_where_it_was(log):
    """A line taken out of any file: the fault names the record after the gap."""
    for path in log.files:
        lines = path.read_bytes().splitlines(keepends=True)
        for place in range(len(lines) - 1):
            path.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
            fault = fault_of(log)
            assert fault is not None
            assert (fault.path, fault.line) == (str(path), place + 1)
            assert place == 0 or "is missing before record" in fault.why
        path.write_bytes(b"".join(lines))


def test_records_out_of_order_or_repeated_are_found(log):
    """Two neighbours swapped, or a line twice: the fault names the first that is out of place."""
    path = log.files[1]
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(1, len(lines) - 1):
        path.write_bytes(b"".join([*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]))
        assert fault_of(log).line == place + 1
        path.write_bytes(b"".join([*lines[: place + 1], *lines[place:]]))
        fault = fault_of(log)
        assert (fault.line, fault.path) == (place + 2, str(path))
        assert "out of order, or repeated" in fault.why


def test_a_sealed_segment_that_was_cut_is_found(log):
    """Any number of lines cut off the end of a segment that is not the last: its missing seal tells."""
    path = log.files[0]
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:place]))
        fault = fault_of(log)
        assert (fault.path, fault.line) == (str(path), place)
        assert "without its seal" in fault.why


def test_a_missing_segment_is_found(log):
    """A file taken away is a fault, unless it is among the oldest and they are said to be elsewhere."""
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


def test_a_tail_that_was_cut_is_found_by_a_published_head_only(log):
    """Without its last records a log is not sealed, and verifies; a head that was published shows what is missing."""
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
    """Writes the whole log anew, with one target changed and a chain that fits."""
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


def test_a_log_rewritten_whole_is_found_by_key_or_published_head(write):
    """Without a key anybody can compute a chain that fits, and only a published head tells; with one, it is found."""
    plain = write(name="plain.jsonl")
    published = verify(plain.path).head
    rewrite(plain, b"")
    assert verify(plain.path).fault is None
    assert "no record has the published hash" in verify(plain.path, head=published).fault.why
    keyed = write(key=KEY, name="keyed.jsonl")
    rewrite(keyed, b"")
    assert "its hash does not follow" in verify(keyed.path, key=KEY).fault.why


def test_a_key_asked_for_must_have_been_used(write):
    """A keyed log does not verify without its key or with another; a log without key does not pass for a keyed one."""
    plain, keyed = write(name="plain.jsonl"), write(key=KEY, name="keyed.jsonl")
    assert "the chain has no key" in verify(plain.path, key=KEY).fault.why
    assert "the chain is keyed" in verify(keyed.path).fault.why
    assert "with another key" in verify(keyed.path, key=b"o" * 32).fault.why


def test_one_sealed_segment_verifies_alone(log):
    """The path of a sealed segment, with `archived`, verifies that segment."""
    for path in log.files[:-1]:
        found = verify(path, key=log.key, archived=True)
        assert (found.fault, found.sealed, found.segments) == (None, True, 1)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b'{"v":1,"seq":1}\n', b"\xff\xfe\n", b"nonsense"])
def test_what_is_no_log_has_a_fault_and_no_crash(tmp_path, content):
    """Empty and foreign files are faults, not exceptions."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    assert verify(path).fault is not None


def test_the_head_of_an_open_log_is_found_later(tmp_path):
    """A head taken while the log is written to is among the hashes of the finished log."""
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(path)
    head = log.head
    log.close()
    assert verify(path, head=head).fault is None
    assert len(list(read_lines(str(path)))) == 2
