"""Sinks besides the file: logging, callables and several at once; a failing sink affects nothing else."""

import json
import logging
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream import PluginHost
from nyx_stream.audit import AuditEvent, AuditLog, LoggingSink, fan_out, read_log, verify
from nyx_stream.audit.record import Encoder
from nyx_stream.audit.redaction import printable, summary
from nyx_stream.audit.sinks import IsolatedSink
from nyx_stream.errors import AuditError, PolicyError
from nyx_stream.host.config import read_config
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import write_plugin

GRANT = SandboxPolicy.locked_down().allow_path_prefix("$DATA")
CODE = """
class Main(Plugin):
    @export
    async def exists(self) -> bool: return await self.files.exists("x")
    @export
    async def peek(self) -> str: return await self.files.read_text("/etc/passwd")
"""


@pytest.fixture
def plugin(tmp_path):
    """A plugin that may read its data directory."""
    return write_plugin(tmp_path / "plugins" / "p", CODE, permissions='write = ["$DATA"]')


def event(**changes):
    """Returns an allowed request of a plugin, with `changes`."""
    return replace(
        AuditEvent(1.0, "p", "http", "GET", "https://a.example/x", True, "a.example", "allowed", "guard"), **changes
    )


def failing_sink(event):
    """A sink that always raises."""
    raise RuntimeError("no space\x1b[2J")


TEXTS = st.one_of(
    st.text(), st.sampled_from(["https://u:p@a.example/x?token=1#f", "/etc/a?b", "see http://b/?k=v now"])
)


@given(st.builds(AuditEvent, st.just(1.0), TEXTS, st.sampled_from(["http", "files"]), TEXTS, TEXTS, st.booleans(),
                 st.none() | TEXTS, TEXTS, st.just("guard")), st.booleans())  # fmt: skip
def test_a_printable_event_equals_the_record_in_the_file(event, keep):
    """Every sink shows the same texts of an event."""
    assert printable(event, keep_queries=keep) == AuditEvent(
        **json.loads(b"{%b}" % Encoder(keep_queries=keep).members(event))
    )


def test_a_summary_is_safe_to_print():
    """It is one line without control characters and without the query."""
    text = summary(printable(event(target="https://a.example/x?token=secret\n\x1b[2J", plugin="p\u202e")))
    assert text.isprintable()
    assert "secret" not in text
    assert "https://a.example/x?…" in text


def test_the_logging_sink_sets_level_and_attributes(caplog):
    """Denied events are logged at WARNING, allowed ones at INFO; each field is an attribute, safe to print."""
    caplog.set_level(logging.INFO, "nyx.audit")
    sink = LoggingSink()
    sink(event(target="https://a.example/x?token=secret"))
    sink(event(allowed=False, rule=None, reason="no rule allows it\x00"))
    allowed, denied = caplog.records
    assert (allowed.levelname, denied.levelname) == ("INFO", "WARNING")
    assert allowed.nyx_target == "https://a.example/x?…"
    assert (denied.nyx_rule, denied.nyx_reason, denied.nyx_allowed) == (None, "no rule allows it\\u0000", False)
    assert "secret" not in caplog.text


def test_the_logging_sink_takes_another_logger_and_can_keep_queries(caplog):
    """Events below the logger's level are left out."""
    logger = logging.getLogger("mine")
    caplog.set_level(logging.WARNING, "mine")
    sink = LoggingSink(logger, keep_queries=True)
    sink(event())
    sink(event(allowed=False, target="https://a.example/?q=1"))
    assert [record.name for record in caplog.records] == ["mine"]
    assert caplog.records[0].nyx_target == "https://a.example/?q=1"


def test_a_sink_that_raises_does_not_affect_the_others(caplog):
    """The sinks before and after it get every event; the error is logged once, escaped."""
    first, last = [], []
    sink = fan_out(first.append, failing_sink, last.append)
    events = [event(target=str(number)) for number in range(3)]
    for each in events:
        sink(each)
    assert first == last == events
    (record,) = caplog.records
    assert "failing_sink failed to take an event: RuntimeError: no space\\u001b[2J" in record.message


def test_a_coroutine_function_is_refused():
    """It would never be awaited; the error says what to do instead."""

    async def later(event):
        pass

    class Later:
        async def __call__(self, event):
            pass

    for sink in (later, Later()):
        with pytest.raises(TypeError, match="put the event into a queue"):
            fan_out(sink)
        with pytest.raises(TypeError, match="put the event into a queue"):
            PluginHost(audit=sink)


def test_a_returned_coroutine_is_closed_and_logged(caplog):
    """A lambda hides a coroutine function: the coroutine that it returns is closed, so that it causes no warning."""

    async def later(event):
        pass

    fan_out(lambda event: later(event))(event())
    assert "it returned a coroutine, which is never awaited" in caplog.text


def test_failures_are_counted_from_every_thread():
    """Failures in several threads at once are all counted."""
    sink = IsolatedSink(failing_sink)
    threads = [threading.Thread(target=lambda: [sink(event()) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.failed == 2000


async def test_a_host_writes_to_several_at_once(plugin, tmp_path, caplog):
    """Two files, logging and a callable get the same events; the failures of another sink are counted and logged."""
    caplog.set_level(logging.INFO, "nyx.audit")
    seen = []
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    host = PluginHost(audit=[*paths, failing_sink, LoggingSink(), seen.append], data_dir=tmp_path / "data")
    async with host:
        handle = await host.load(plugin, policy=GRANT)
        assert await handle.call("exists") is False
        with pytest.raises(PermissionError):
            await handle.call("peek")
        assert host.audit_lost == {str(paths[0]): 0, str(paths[1]): 0, "failing_sink": 3, **_zero(host)}
        assert handle.stats().denied == 1
    for path in paths:
        assert [each.action for each in read_log(path)] == [each.action for each in seen] == ["load", "stat", "read"]
        assert verify(path).sealed
    logged = [record for record in caplog.records if hasattr(record, "nyx_action")]
    assert [(record.levelname, record.nyx_action) for record in logged] == [
        ("INFO", "load"),
        ("INFO", "stat"),
        ("WARNING", "read"),
    ]
    assert "audit sink failing_sink did not take 3 events" in caplog.text


def _zero(host):
    return {name: 0 for name in host.audit_lost if name.endswith((".LoggingSink", "append"))}


async def test_a_host_closes_only_the_logs_that_it_opened(tmp_path):
    """A log that was passed in stays open, also beside a path."""
    async with AuditLog.open(tmp_path / "mine.jsonl") as log:
        async with PluginHost(audit=[log, tmp_path / "hosts.jsonl"], data_dir=tmp_path):
            pass
        log.record(event())
        await log.aflush()
        assert list(read_log(tmp_path / "mine.jsonl")) == [event()]


async def test_a_log_that_does_not_open_closes_the_others(tmp_path):
    """The host does not start, and the thread of the first log has ended."""
    with pytest.raises(AuditError, match="cannot be opened"):
        async with PluginHost(audit=[tmp_path / "a.jsonl", tmp_path]):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "nyx-audit"]


async def test_an_empty_list_of_sinks_means_no_audit(plugin, tmp_path):
    """An empty list is equivalent to None."""
    async with PluginHost(audit=[], data_dir=tmp_path / "data") as host:
        assert not host.audited
        assert (await host.load(plugin)).stats().denied is None


async def test_a_sink_that_raises_does_not_change_a_decision(plugin, tmp_path):
    """Allowed actions are done, and denied ones raise their own error."""
    async with PluginHost(audit=failing_sink, data_dir=tmp_path / "data") as host:
        handle = await host.load(plugin, policy=GRANT)
        assert await handle.call("exists") is False
        with pytest.raises(PermissionError, match="denied"):
            await handle.call("peek")


async def test_a_host_file_can_enable_logging(tmp_path, caplog):
    """Alone or beside a file, and in addition to the sinks that the program passes."""
    caplog.set_level(logging.INFO, "nyx.audit")
    write_plugin(tmp_path / "p", CODE)
    file = tmp_path / "nyx.toml"
    file.write_text('[audit]\nlogging = true\n[[plugins]]\nfrom = "p"')
    seen = []
    async with PluginHost.from_toml(file, audit=seen.append):
        pass
    assert [record.nyx_action for record in caplog.records] == [each.action for each in seen] == ["load"]
    file.write_text('[audit]\nfile = "audit.jsonl"\nlogging = true\n')
    assert read_config(file).logging
    file.write_text('audit = "audit.jsonl"')
    assert not read_config(file).logging
    file.write_text('[audit]\nfsync = "each"')
    with pytest.raises(PolicyError, match="needs a file, or logging = true"):
        read_config(file)
