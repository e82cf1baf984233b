"""`nyx audit`: reading, filtering, counting and verifying a log."""

import json
import subprocess
import sys

import jsonschema
import pytest

from nyx_stream.audit import AuditEvent, AuditLog

EVENTS = [
    AuditEvent(1000.5, "weather", "http", "GET", "https://a.example/", True, "https://a.example", "allowed", "guard"),
    AuditEvent(1001.0, "weather", "files", "read", "/x\x1b[1m", False, None, "no rule allows it", "guard"),
    AuditEvent(1002.0, "feeds", "http", "GET", "https://b.example/", False, None, "no rule allows it", "guard"),
]
UNFINISHED = b'{"v":1,"seq":'


@pytest.fixture
def log(tmp_path):
    """A log of three events and an unfinished line."""
    path = tmp_path / "audit.jsonl"
    writer = AuditLog.open(path)
    for event in EVENTS:
        writer.record(event)
    writer.close()
    path.write_bytes(path.read_bytes() + UNFINISHED)
    return path


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 3),
        (("--plugin", "weather"), 2),
        (("--capability", "http"), 2),
        (("--verdict", "denied"), 2),
        (("--plugin", "weather", "--verdict", "denied", "--capability", "files"), 1),
        (("--plugin", "other"), 0),
        (("--since", "1970-01-01T00:16:41"), 2),
        (("--since", "1970-01-01T00:16:41Z", "--until", "1970-01-01T01:16:42+01:00"), 1),
        (("--since", "5min"), 0),
        (("--until", "5min"), 3),
    ],
)
def test_filters_combine(nyx, log, filters, count):
    """An event must pass every filter; the unfinished line is skipped."""
    assert len(nyx("audit", "show", log, "--json", *filters).out.splitlines()) == count


def test_the_table_is_safe_to_print(nyx, log):
    """Control characters in a target are escaped."""
    out = nyx("audit", "show", log).out
    assert "\x1b" not in out
    assert "1970-01-01 00:16:40.500" in out


def test_json_lines_are_safe_to_print_even_if_another_program_wrote_them(nyx, log):
    """A control character in the file is escaped."""
    log.write_bytes(log.read_bytes().replace(b"https://b.example/", "\u202ehttps://b.example/".encode()))
    out = nyx("audit", "show", log, "--json").out
    assert "\u202e" not in out
    assert "\\u202e" in out


def test_tail_prints_the_last_events(nyx, log):
    """It prints the requested number of events that pass the filter."""
    out = nyx("audit", "tail", log, "-n", "1", "--plugin", "weather", "--json").out
    assert '"action":"read"' in out
    assert len(out.splitlines()) == 1


def test_stats_count_by_plugin_and_capability(nyx, log):
    """Each plugin, kind and capability has a row with both counts; the last line has the total and the time."""
    rows = [json.loads(line) for line in nyx("audit", "stats", log, "--json").out.splitlines()]
    assert rows == [
        {"plugin": "feeds", "kind": "decision", "capability": "http", "allowed": 0, "denied": 1},
        {"plugin": "weather", "kind": "decision", "capability": "files", "allowed": 0, "denied": 1},
        {"plugin": "weather", "kind": "decision", "capability": "http", "allowed": 1, "denied": 0},
    ]
    assert "3 events, 1970-01-01 00:16:40.500 to 1970-01-01 00:16:42.000 UTC" in nyx("audit", "stats", log).out
    assert "1 event," in nyx("audit", "stats", log, "--plugin", "feeds").out


def test_verify_reports_what_the_chain_proves(nyx, log):
    """For an unbroken log the exit code is 0, and the output has the head and what remains unproven."""
    done = nyx("audit", "verify", log)
    assert done.code == 0
    assert "unbroken: 5 records in 1 segment\n" in done.out
    assert "unfinished last line of 13 bytes" in done.out
    assert "not sealed" in done.out
    assert "no key: anyone who can write the file" in done.out
    assert "could have been cut off" in done.out
    head = json.loads(nyx("audit", "verify", log, "--json").out)["head"]
    again = nyx("audit", "verify", log, "--head", head)
    assert again.code == 0
    assert "could have been cut off" not in again.out.split("not sealed")[1].split("\n", 1)[1]


def test_verify_names_the_first_fault(nyx, log):
    """For a changed byte the exit code is 1, and the output has file, line and reason."""
    log.write_bytes(log.read_bytes().replace(b'"allowed":false', b'"allowed":true ', 1))
    done = nyx("audit", "verify", log)
    assert done.code == 1
    assert f"{log}:3: record 3 was changed" in done.out
    assert nyx("audit", "verify", log, "--head", "0" * 64).code == 1


def test_verify_with_a_key(nyx, tmp_path):
    """The key is read from a file. Without it, or with another one, the log does not verify."""
    path, good, other = tmp_path / "audit.jsonl", tmp_path / "good", tmp_path / "other"
    good.write_bytes(b"k" * 32 + b"\n")
    other.write_bytes(b"o" * 32)
    AuditLog.open(path, key=b"k" * 32).close()
    assert nyx("audit", "verify", path, "--key-file", good).code == 0
    assert "with another key" in nyx("audit", "verify", path, "--key-file", other).out
    assert "the chain is keyed" in nyx("audit", "verify", path).out
    good.write_bytes(b"short")
    assert nyx("audit", "verify", path, "--key-file", good).code == 2
    assert nyx("audit", "verify", path, "--key-file", tmp_path / "nowhere").code == 7


@pytest.mark.parametrize(
    "options",
    [
        ("show", "--head", "0" * 64),
        ("stats", "--follow"),
        ("verify", "--plugin", "weather"),
        ("verify", "--head", "zz"),
        ("show", "--since", "yesterday"),
    ],
)
def test_options_for_another_action_are_refused(nyx, log, options):
    """An option that would have no effect is a usage error."""
    what, *rest = options
    assert nyx("audit", what, log, *rest).code == 2


def test_the_schema_of_a_line_is_printed(nyx, log):
    """`nyx schema audit` prints a schema that the lines of a log match."""
    schema = json.loads(nyx("schema", "audit").out)
    lines = log.read_bytes().removesuffix(UNFINISHED).splitlines()
    assert all(jsonschema.Draft202012Validator(schema).is_valid(json.loads(line)) for line in lines)


def test_a_file_that_is_not_a_log_is_reported_with_its_line(nyx, log):
    """The exit code is 7, and the message has the line."""
    log.write_bytes(b"nonsense\n")
    done = nyx("audit", "show", log)
    assert done.code == 7
    assert "line 1" in done.err
    assert nyx("audit", "show", log.parent / "nowhere").code == 7
    assert nyx("audit", "tail", log.parent / "nowhere").code == 7
    assert nyx("audit", "verify", log.parent / "nowhere").code == 7


def test_follow_prints_each_event_once_across_rotations(log):
    """`tail --follow` prints new events, also after the file was sealed and replaced."""
    command = [sys.executable, "-m", "nyx_stream", "audit", "tail", str(log), "--follow", "--json", "-n", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert b'"plugin":"feeds"' in reader.stdout.readline()
        writer = AuditLog.open(log, segment_bytes=4096)
        assert b'"action":"repair"' in reader.stdout.readline()
        for number in range(100):
            writer.record(AuditEvent(float(number), "late", "http", "GET", "t", True, None, "r", "guard"))
            writer.flush()
        times = [json.loads(reader.stdout.readline())["time"] for _ in range(100)]
        writer.close()
        reader.terminate()
    assert times == list(range(100))
    assert len(list(log.parent.glob("audit.jsonl.*"))) > 3
