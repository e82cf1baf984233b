"""One event as one line: safe to print, readable back, and one line whatever the event says."""

import json

import pytest

from nyx_stream.audit import AuditEvent, read_log
from nyx_stream.audit.file import LINE_START
from nyx_stream.audit.line import from_line, to_line


def event(target="https://api.met.no/v1/x", **changes) -> AuditEvent:
    values = {
        "time": 1700000000.25,
        "plugin": "weather",
        "capability": "http",
        "action": "GET",
        "target": target,
        "allowed": False,
        "rule": None,
        "reason": "no rule allows it",
        "layer": "guard",
    }
    return AuditEvent(**(values | changes))


def test_line_holds_every_field_and_reads_back():
    """An event survives the way to its line and back, field by field."""
    assert from_line(to_line(event())) == event()


def test_line_starts_as_the_repair_expects():
    """What the repair may cut off begins as every line begins."""
    assert to_line(event()).startswith(LINE_START)


@pytest.mark.parametrize(
    "hostile", ["a\nb", "\x1b[2J", "\u202eevil", "\ud800", "a\u2028b", "\x00", "\r", "zero\u200bwidth"]
)
def test_hostile_text_is_escaped_in_the_decoded_line_too(hostile):
    """No control, bidirectional or zero-width character reaches a reader, even after JSON decoding."""
    line = to_line(event(hostile, action=hostile, reason=hostile))
    assert line.count(b"\n") == 1
    row = json.loads(line)
    for name in ("target", "action", "reason"):
        assert row[name].isprintable()


def test_long_target_is_cut():
    """A target of any length gives a line of bounded length."""
    assert len(to_line(event("x" * 10_000_000))) < 5000


def test_reader_names_the_broken_line(tmp_path):
    """A whole line that is no event is an error with file and line number."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(to_line(event()) + b"{}\n")
    with pytest.raises(ValueError, match=r"audit\.jsonl:2: not an audit event"):
        list(read_log(path))


def test_reader_passes_over_an_unfinished_last_line(tmp_path):
    """A log whose writer was killed inside a line still reads up to that line."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(to_line(event()) + to_line(event())[:40])
    assert list(read_log(path)) == [event()]
