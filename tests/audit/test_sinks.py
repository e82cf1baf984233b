"""Sinks besides the file: logging, callables and several at once; what one of them does wrong hurts nothing else."""

import json
import logging
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream import PluginHost
from nyx_stream.audit import AuditEvent, AuditLog, LoggingSink, fan_out, read_log, verify
from nyx_stream.audit.fan_out import Isolated
from nyx_stream.audit.printable import printable, sentence
from nyx_stream.audit.record import Encoder
from nyx_stream.errors import AuditError, PolicyError
from nyx_stream.host.config import read_config
from nyx_stream.policy import SandboxPolicy
from tests.plugin_fixtures import write_plugin

GRANT = SandboxPolicy.locked_down().allow_path_prefix("$DATA")
CODE = """
class Main(Plugin):
    @export
    async def look(self) -> bool: return await self.files.exists("x")
    @export
    async def peek(self) -> str: return await self.files.read_text("/etc/passwd")
"""


@pytest.fixture
def plugin(tmp_path):
    """A plugin that may look at its data."""
    return write_plugin(tmp_path / "plugins" / "p", CODE, permissions='write = ["$DATA"]')


def event(**different):
    """An allowed request of a plugin, but for what is given."""
    return replace(
        AuditEvent(1.0, "p", "http", "GET", "https://a.example/x", True, "a.example", "allowed", "guard"), **different
    )


def broken(event):
    """A sink that never works."""
    raise RuntimeError("no room\x1b[2J")


TEXTS = st.one_of(
    st.text(), st.sampled_from(["https://u:p@a.example/x?token=1#f", "/etc/a?b", "see http://b/?k=v now"])
)


@given(st.builds(AuditEvent, st.just(1.0), TEXTS, st.sampled_from(["http", "files"]), TEXTS, TEXTS, st.booleans(),
                 st.none() | TEXTS, TEXTS, st.just("guard")), st.booleans())  # fmt: skip
def test_a_printable_event_is_the_one_that_the_file_has(event, keep):
    """Whatever stands in an event, every sink shows the same of it."""
    assert printable(event, keep_queries=keep) == AuditEvent(
        **json.loads(b"{%b}" % Encoder(keep_queries=keep).members(event))
    )


def test_a_sentence_cannot_be_forged():
    """It is one line, with nothing in it that a terminal obeys, and without the query."""
    text = sentence(printable(event(target="https://a.example/x?token=secret\n\x1b[2J", plugin="p\u202e")))
    assert text.isprintable()
    assert "secret" not in text
    assert "https://a.example/x?…" in text


def test_logging_has_the_verdict_as_its_level_and_the_members_as_attributes(caplog):
    """Denied: WARNING; allowed: INFO; each member under its own name, safe to print."""
    caplog.set_level(logging.INFO, "nyx.audit")
    sink = LoggingSink()
    sink(event(target="https://a.example/x?token=secret"))
    sink(event(allowed=False, rule=None, reason="no rule allows it\x00"))
    allowed, denied = caplog.records
    assert (allowed.levelname, denied.levelname) == ("INFO", "WARNING")
    assert allowed.nyx_target == "https://a.example/x?…"
    assert (denied.nyx_rule, denied.nyx_reason, denied.nyx_allowed) == (None, "no rule allows it\\u0000", False)
    assert "secret" not in caplog.text


def test_logging_can_keep_queries_and_go_elsewhere(caplog):
    """The logger is anybody's; a level that leaves an event out costs nothing of it."""
    logger = logging.getLogger("mine")
    caplog.set_level(logging.WARNING, "mine")
    sink = LoggingSink(logger, keep_queries=True)
    sink(event())
    sink(event(allowed=False, target="https://a.example/?q=1"))
    assert [record.name for record in caplog.records] == ["mine"]
    assert caplog.records[0].nyx_target == "https://a.example/?q=1"


def test_a_sink_that_raises_keeps_nothing_from_the_others(caplog):
    """Before it and behind it, every event arrives; the fault is told once, escaped."""
    first, last = [], []
    sink = fan_out(first.append, broken, last.append)
    events = [event(target=str(number)) for number in range(3)]
    for each in events:
        sink(each)
    assert first == last == events
    (record,) = caplog.records
    assert "broken did not take an event: RuntimeError: no room\\u001b[2J" in record.message


def test_a_coroutine_function_is_refused():
    """It would be called and never awaited: the error says what to do instead."""

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


def test_a_coroutine_that_comes_back_is_closed_and_told(caplog):
    """A lambda hides the coroutine function: what it returns is closed, not left to warn."""

    async def later(event):
        pass

    fan_out(lambda event: later(event))(event())
    assert "it returned a coroutine, which nobody awaits" in caplog.text


def test_failures_are_counted_from_every_thread():
    """None is missed, whoever caused it."""
    sink = Isolated(broken)
    threads = [threading.Thread(target=lambda: [sink(event()) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.failed == 2000


async def test_a_host_writes_to_several_at_once(plugin, tmp_path, caplog):
    """Two files, logging and a callable have the same events; the broken one among them is counted and told."""
    caplog.set_level(logging.INFO, "nyx.audit")
    seen = []
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    host = PluginHost(audit=[*paths, broken, LoggingSink(), seen.append], data_dir=tmp_path / "data")
    async with host:
        handle = await host.load(plugin, policy=GRANT)
        assert await handle.call("look") is False
        with pytest.raises(PermissionError):
            await handle.call("peek")
        assert host.audit_lost == {str(paths[0]): 0, str(paths[1]): 0, "broken": 3, **_zero(host)}
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
    assert "audit sink broken did not take 3 events" in caplog.text


def _zero(host):
    return {name: 0 for name in host.audit_lost if name.endswith((".LoggingSink", "append"))}


async def test_a_log_that_was_given_stays_open_beside_others(tmp_path):
    """Whatever else there is, the host closes only what it opened."""
    async with AuditLog.open(tmp_path / "mine.jsonl") as log:
        async with PluginHost(audit=[log, tmp_path / "hosts.jsonl"], data_dir=tmp_path):
            pass
        log.record(event())
        await log.aflush()
        assert list(read_log(tmp_path / "mine.jsonl")) == [event()]


async def test_a_second_log_that_does_not_open_leaves_the_first_closed(tmp_path):
    """The host does not start, and no thread of it is left."""
    with pytest.raises(AuditError, match="cannot be opened"):
        async with PluginHost(audit=[tmp_path / "a.jsonl", tmp_path]):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "nyx-audit"]


async def test_no_sink_at_all_is_no_audit(plugin, tmp_path):
    """An empty list is as good as None."""
    async with PluginHost(audit=[], data_dir=tmp_path / "data") as host:
        assert not host.audited
        assert (await host.load(plugin)).stats().denied is None


async def test_a_sink_that_raises_does_not_change_a_decision(plugin, tmp_path):
    """What is allowed is done, what is denied is denied with its own error."""
    async with PluginHost(audit=broken, data_dir=tmp_path / "data") as host:
        handle = await host.load(plugin, policy=GRANT)
        assert await handle.call("look") is False
        with pytest.raises(PermissionError, match="denied"):
            await handle.call("peek")


async def test_a_host_file_names_logging(tmp_path, caplog):
    """Alone or beside a file; and callables of the program come on top."""
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
