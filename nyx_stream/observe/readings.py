"""What is exported about each plugin, once for every format: name, unit, meaning, and where the value stands. Pure.

Names and units are written as in OpenTelemetry. Prometheus' names follow by the rules with which OpenTelemetry's own
exporter makes them, so that a dashboard fits both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nyx_stream.host import PluginMetrics, State

_SUFFIXES = {"By": "_bytes", "s": "_seconds"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One number about a plugin. `value` returns `None` where nobody knows it."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    meaning: str
    value: Callable[[PluginMetrics], float | None]

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, of a counter without `_total`."""
        return self.name.replace(".", "_") + _SUFFIXES.get(self.unit, "")


READINGS = (
    Reading("nyx.plugin.up", "gauge", "1", "Whether it takes calls.", lambda found: found.state is State.RUNNING),
    Reading("nyx.plugin.calls", "counter", "{call}", "Calls and streams asked for.", lambda found: found.stats.calls),
    Reading(
        "nyx.plugin.call.errors",
        "counter",
        "{call}",
        "Calls and streams that raised, timeouts among them.",
        lambda found: found.stats.failed,
    ),
    Reading(
        "nyx.plugin.call.timeouts",
        "counter",
        "{call}",
        "Calls and steps of streams that took too long.",
        lambda found: found.stats.timeouts,
    ),
    Reading(
        "nyx.plugin.call.refusals",
        "counter",
        "{call}",
        "Calls turned away because the queue was full.",
        lambda found: found.stats.refused,
    ),
    Reading("nyx.plugin.call.active", "gauge", "{call}", "Calls that run now.", lambda found: found.stats.active),
    Reading(
        "nyx.plugin.call.waiting", "gauge", "{call}", "Calls that wait for room now.", lambda found: found.stats.waiting
    ),
    Reading(
        "nyx.plugin.denials", "counter", "{decision}", "Decisions against it.", lambda found: found.stats.denied
    ),
    Reading(
        "nyx.plugin.restarts",
        "counter",
        "{restart}",
        "Times that it was started again after a crash.",
        lambda found: found.stats.restarts,
    ),
    Reading(
        "nyx.plugin.http.requests",
        "counter",
        "{request}",
        "HTTP requests that its leases let pass.",
        lambda found: found.requests,
    ),
    Reading(
        "nyx.plugin.http.received",
        "counter",
        "By",
        "HTTP that arrived for it, heads included.",
        lambda found: found.bytes_in,
    ),
    Reading(
        "nyx.plugin.http.sent", "counter", "By", "HTTP that left for it, heads included.", lambda found: found.bytes_out
    ),
    Reading("nyx.plugin.files.opened", "counter", "{file}", "Files opened.", lambda found: found.opens),
    Reading(
        "nyx.plugin.memory", "gauge", "By", "Resident memory of its own process.", lambda found: found.memory
    ),
    Reading(
        "nyx.plugin.cpu.time",
        "counter",
        "s",
        "Processor time of its own process since that was started.",
        lambda found: found.cpu_seconds,
    ),
)  # fmt: skip

LOST = "nyx.audit.lost"
"""A counter of the host, by sink: `PluginHost.audit_lost`."""
LOST_MEANING = "Events that a sink of the audit did not take."

LATENCY = "nyx.plugin.call.duration"
"""How long calls took, in seconds, by plugin: a distribution."""
