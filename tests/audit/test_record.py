"""One event as one line: safe to print, decodable, and without secrets."""

import json

import jsonschema
import pytest

from nyx_stream.audit import AuditEvent, AuditLog, read_log
from nyx_stream.audit.chain import LINE_START, Position, link
from nyx_stream.audit.record import Encoder, audit_schema, from_line


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
        "kind": "decision",
    }
    return AuditEvent(**(values | changes))


def line_of(one: AuditEvent, *, keep_queries: bool = False) -> bytes:
    return link(Position(), [Encoder(keep_queries=keep_queries).members(one)])[0]


def test_line_holds_every_field_and_reads_back():
    """Encoding and decoding an event returns every field."""
    one = event(plugin=None, rule="GET https://api.met.no/**", allowed=True, kind="lifecycle")
    assert from_line(line_of(one)).event == one


def test_a_line_starts_with_the_prefix_that_a_repair_requires():
    """A repair only cuts off text that begins with `LINE_START`, so every line begins with it."""
    assert line_of(event()).startswith(LINE_START)


@pytest.mark.parametrize(
    "hostile",
    ["a\nb", "\x1b[2J", "\u202eevil", "\ud800", "a\u2028b", "\x00", "\r", "zero\u200bwidth", "\x7f", "\u2066", '"},{"'],
)
def test_hostile_text_is_escaped_in_the_decoded_line_too(hostile):
    """No control, bidirectional or zero-width character reaches a reader, even after JSON decoding."""
    names = ("plugin", "capability", "action", "target", "rule", "reason")
    line = line_of(event(**dict.fromkeys(names, hostile)))
    assert line.count(b"\n") == 1
    row = json.loads(line)
    for name in names:
        assert row[name].isprintable()


@pytest.mark.parametrize("name", ["target", "plugin", "reason", "rule"])
def test_long_text_is_cut(name):
    """A text of any length produces a line of bounded length."""
    assert len(line_of(event(**{name: "\x00" * 10_000_000}))) < 30_000


@pytest.mark.parametrize(
    "broken", [{"time": "soon"}, {"target": None}, {"rule": ["a"]}, {"plugin": object()}, {"reason": b"bytes"}]
)
def test_values_of_the_wrong_type_are_recorded_as_an_encoding_failure(broken):
    """A sink never raises: an event that cannot be encoded leaves a record that says so."""
    one = from_line(line_of(event(**broken))).event
    assert one is not None
    assert (one.kind, one.action, one.allowed) == ("log", "encode", False)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1e300])
def test_an_impossible_time_is_recorded_as_zero(time):
    """JSON has no NaN or infinity: the record is kept with the time zero."""
    assert json.loads(line_of(event(time=time)))["time"] == 0


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("https://a.example/x?token=s3cret", "https://a.example/x?…"),
        ("https://a.example/x?a=1#s3cret", "https://a.example/x?…"),
        ("https://a.example/x#s3cret?a", "https://a.example/x#…"),
        ("https://me:s3cret@a.example/", "https://…@a.example/"),
        ("/relative?s3cret", "/relative?…"),
        ("https://a.example/?", "https://a.example/?"),
        ("https://a.example/x", "https://a.example/x"),
        ("https://a.example/?" + "s3cret" * 10_000, "https://a.example/?…"),
    ],
)
def test_a_target_is_recorded_without_its_secrets(target, kept):
    """Query string, fragment and user of a URL are removed."""
    assert json.loads(line_of(event(target)))["target"] == kept


def test_a_url_inside_another_text_is_redacted_too():
    """A reason, or the target of another capability, may quote a URL. A file name may have a question mark."""
    one = from_line(line_of(event("urlopen of HTTP://a.example/?s3cret now", capability="network"))).event
    assert one is not None
    assert one.target == "urlopen of HTTP://a.example/?… now"
    assert b"s3cret" not in line_of(event(reason="redirect to https://a.example/?s3cret refused"))
    assert json.loads(line_of(event("/data/why?.txt", capability="files")))["target"] == "/data/why?.txt"


def test_query_strings_are_kept_on_request():
    """`keep_queries` keeps the complete target."""
    url = "https://me:pw@a.example/x?token=1#f"
    assert json.loads(line_of(event(url), keep_queries=True))["target"] == url


async def test_every_line_of_a_log_matches_the_schema(tmp_path):
    """Events of every kind, and the records that open and seal a file, match the schema of `nyx schema audit`."""
    schema = audit_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    path = tmp_path / "audit.jsonl"
    kinds = schema["oneOf"][0]["properties"]["kind"]["enum"]
    async with AuditLog.open(path) as log:
        for kind in kinds:
            log.record(event(kind=kind))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        jsonschema.validate(line, schema)
    assert [line["kind"] for line in lines] == ["segment", *kinds, "seal"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(lines[1] | {"more": 1}, schema)


@pytest.mark.parametrize("broken", [b"{}", b"[1]", b"nonsense", b'{"v":1}', b"[" * 100_000, b'{"v":2,"seq":1}'])
def test_reader_names_the_broken_line(tmp_path, broken):
    """A complete line that is not a record is an error with file and line number."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line_of(event()) + broken + b"\n")
    with pytest.raises(ValueError, match=r"audit\.jsonl:2: "):
        list(read_log(path))


def test_reader_skips_an_unfinished_last_line(tmp_path):
    """A log whose writer was killed within a line is readable up to that line."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line_of(event()) + line_of(event())[:40])
    assert list(read_log(path)) == [event()]
