"""The metrics of a plugin, once for every format: name, unit, description, and how to read the value.

Names and units follow OpenTelemetry. The Prometheus names are derived by the rules of OpenTelemetry's own exporter, so
that one dashboard fits both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nyx_stream.host import PluginMetrics, State

_SUFFIXES = {"By": "_bytes", "s": "_seconds"}


@dataclass(frozen=True, slots=True)
class MetricReading:
    """One number about a plugin. `value` returns `None` where it isn't known."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    meaning: str
    value: Callable[[PluginMetrics], float | None]

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, for a counter without `_total`."""
        return self.name.replace(".", "_") + _SUFFIXES.get(self.unit, "")


def _counter(name: str, unit: str, meaning: str, value: Callable[[PluginMetrics], float | None]) -> MetricReading:
    return MetricReading(f"nyx.plugin.{name}", "counter", unit, meaning, value)


def _gauge(name: str, unit: str, meaning: str, value: Callable[[PluginMetrics], float | None]) -> MetricReading:
    return MetricReading(f"nyx.plugin.{name}", "gauge", unit, meaning, value)


READINGS = (
    _gauge("up", "1", "Whether the plugin takes calls.", lambda m: m.state is State.RUNNING),
    _counter("calls", "{call}", "Calls and streams requested.", lambda m: m.stats.calls),
    _counter("call.errors", "{call}", "Calls and streams that raised, timeouts included.", lambda m: m.stats.failed),
    _counter("call.timeouts", "{call}", "Calls and steps of streams that timed out.", lambda m: m.stats.timeouts),
    _counter("call.refusals", "{call}", "Calls refused because the queue was full.", lambda m: m.stats.refused),
    _gauge("call.active", "{call}", "Calls that run now.", lambda m: m.stats.active),
    _gauge("call.waiting", "{call}", "Calls that are queued now.", lambda m: m.stats.waiting),
    _counter("denials", "{decision}", "Denied decisions.", lambda m: m.stats.denied),
    _counter("restarts", "{restart}", "Restarts after a crash.", lambda m: m.stats.restarts),
    _counter("http.requests", "{request}", "HTTP requests that its leases allowed.", lambda m: m.requests),
    _counter("http.received", "By", "HTTP bytes received, headers included.", lambda m: m.bytes_in),
    _counter("http.sent", "By", "HTTP bytes sent, headers included.", lambda m: m.bytes_out),
    _counter("files.opened", "{file}", "Files opened.", lambda m: m.opens),
    _gauge("memory", "By", "Resident memory of the plugin's own process.", lambda m: m.memory),
    _counter("cpu.time", "s", "CPU time of the plugin's own process since it started.", lambda m: m.cpu_seconds),
)

LOST = "nyx.audit.lost"
"""A counter of the host, by sink: `PluginHost.audit_lost`."""
LOST_MEANING = "Events that an audit sink did not take."

LATENCY = "nyx.plugin.call.duration"
"""Durations of calls in seconds, by plugin."""
LATENCY_MEANING = "Durations of calls, time in the queue included."
