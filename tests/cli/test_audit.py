"""`nyx audit`: the log, read and filtered."""

import subprocess
import sys

import pytest

from nyx_stream.audit import AuditEvent
from nyx_stream.audit.line import to_line


@pytest.fixture
def log(tmp_path):
    """A log of four events, the last one of them not finished."""
    path = tmp_path / "audit.jsonl"
    events = [
        AuditEvent(
            1000.5, "weather", "http", "GET", "https://a.example/", True, "https://a.example", "allowed", "guard"
        ),
        AuditEvent(1001.0, "weather", "files", "read", "/x\x1b[1m", False, None, "no rule allows it", "guard"),
        AuditEvent(1002.0, "feeds", "http", "GET", "https://b.example/", False, None, "no rule allows it", "guard"),
    ]
    path.write_bytes(b"".join(map(to_line, events)) + b'{"time":10')
    return path


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 3),
        (("--plugin", "weather"), 2),
        (("--capability", "http"), 2),
        (("--verdict", "denied"), 2),
        (("--plugin", "weather", "--verdict", "denied", "--capability", "files"), 1),
        (("--plugin", "nobody"), 0),
    ],
)
def test_filters_combine(nyx, log, filters, count):
    """Every filter narrows; the unfinished line is passed over."""
    assert len(nyx("audit", "show", log, "--json", *filters).out.splitlines()) == count


def test_the_table_is_safe_to_print(nyx, log):
    """What a plugin wrote into a target does not reach the terminal raw."""
    out = nyx("audit", "show", log).out
    assert "\x1b" not in out
    assert "00:16:40.500" in out


def test_tail_shows_the_last(nyx, log):
    """As many events as asked for, counted after the filter."""
    out = nyx("audit", "tail", log, "-n", "1", "--plugin", "weather", "--json").out
    assert '"action":"read"' in out
    assert len(out.splitlines()) == 1


def test_what_is_no_log_is_named_with_its_line(nyx, log):
    """Exit code 7, file and line."""
    log.write_bytes(b"nonsense\n")
    done = nyx("audit", "show", log)
    assert done.code == 7
    assert "line 1" in done.err
    assert nyx("audit", "show", log.parent / "nowhere").code == 7


def test_following_prints_each_event_once_when_its_line_is_whole(log):
    """`tail --follow` finishes the line that was half written when it began, and goes on."""
    command = [sys.executable, "-m", "nyx_stream", "audit", "tail", str(log), "--follow", "--json", "-n", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        first = reader.stdout.readline()
        rest = to_line(AuditEvent(1003.0, "late", "http", "GET", "t", True, None, "r", "guard"))
        log.write_bytes(log.read_bytes().removesuffix(b'{"time":10') + rest)
        second = reader.stdout.readline()
        reader.terminate()
    assert b'"plugin":"feeds"' in first
    assert second == rest
