"""A host's logs, traces and metrics for OpenTelemetry. Needs the extra `otel`, which is the API alone.

The application configures an SDK, which exports what is recorded here. Names and attributes follow OpenTelemetry's
semantic conventions where they cover them. Texts come from `printable` events, so they're escaped and have no query
strings, fragments or users of URLs.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import TypeAlias
from weakref import WeakSet

from opentelemetry import context, metrics, trace
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber, get_logger_provider
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider
from opentelemetry.metrics import Observation as Measurement
from opentelemetry.trace import Span, StatusCode, Tracer, TracerProvider

from nyx_stream.audit import AuditEvent
from nyx_stream.audit.redaction import printable, summary
from nyx_stream.host import PluginHost, PluginMetrics
from nyx_stream.host.observability.call_observer import Call, Observation
from nyx_stream.observe.readings import LATENCY, LATENCY_MEANING, LOST, LOST_MEANING, READINGS, MetricReading

__all__ = ["Telemetry"]

SCOPE = "nyx_stream"
"""Name of the instrumentation scope."""

_Attributes: TypeAlias = dict[str, str | bool | int]

_CURRENT_SPAN = context.create_key("nyx-call")
_HOST_AND_PORT = re.compile(r"\[?([^\[\]\s]+?)\]?:(\d{1,5})(?: at .*)?")
_METRIC_ATTRIBUTES = ("nyx.plugin.id", "nyx.isolation", "nyx.stream", "code.function.name", "error.type")
_MAX_TIME = 1e12

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds; the buckets that the conventions propose for durations of calls, with smaller ones added."""


class Telemetry:
    """Passes what hosts do to OpenTelemetry. Logs, traces and metrics can each be used alone.

        telemetry = Telemetry()
        host = PluginHost(audit=["audit.jsonl", telemetry.record], observer=telemetry)
        telemetry.measure(host)

    Error texts, arguments, results, query strings and credentials are never exported.

    Args:
        tracer_provider: creates the spans; by default the global one.
        meter_provider: creates the metrics; by default the global one.
        logger_provider: creates the log records; by default the global one.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        meter = (meter_provider or metrics.get_meter_provider()).get_meter(SCOPE)
        self._tracer = (tracer_provider or trace.get_tracer_provider()).get_tracer(SCOPE)
        self._logger = (logger_provider or get_logger_provider()).get_logger(SCOPE)
        self._durations = meter.create_histogram(
            LATENCY, "s", LATENCY_MEANING, explicit_bucket_boundaries_advisory=_BUCKETS
        )
        self._instruments = _Instruments(meter)

    def record(self, event: AuditEvent) -> None:
        """An `AuditSink`: emits a log record for the event, and adds it to the span of the call that caused it."""
        safe = printable(event)
        attributes = _event_attributes(safe)
        severity = SeverityNumber.INFO if safe.allowed else SeverityNumber.WARN
        self._logger.emit(
            LogRecord(
                timestamp=int(safe.time * 1e9) if 0 <= safe.time < _MAX_TIME else None,
                severity_number=severity,
                severity_text=severity.name,
                body=summary(safe),
                attributes=attributes,
                event_name=f"nyx.{safe.kind}",
            )
        )
        span = context.get_value(_CURRENT_SPAN)
        if isinstance(span, Span) and span.is_recording():
            span.add_event(f"nyx.{safe.kind}", attributes)

    def begin(self, call: Call) -> Observation:
        """An `Observer`: records a span and a duration for each call."""
        return _CallSpan(call, self._tracer, self._durations)

    def measure(self, host: PluginHost) -> None:
        """Exports the metrics of a host's plugins until the host is closed or garbage-collected."""
        self._instruments.hosts.add(host)


class _CallSpan:
    """The span and the duration of one call. It's the current span while the plugin runs in the caller's task."""

    def __init__(self, call: Call, tracer: Tracer, durations: Histogram) -> None:
        self._attributes: _Attributes = {
            "nyx.plugin.id": call.plugin,
            "nyx.plugin.version": call.version,
            "nyx.isolation": call.isolation,
            "nyx.stream": call.stream,
            "code.function.name": call.method or "_OTHER",  # the conventions' value for an unknown name
        }
        name = f"{call.plugin}/{self._attributes['code.function.name']}"
        self._span = tracer.start_span(name, attributes=self._attributes)
        self._durations = durations
        self._start = perf_counter()
        self._context = context.set_value(_CURRENT_SPAN, self._span, trace.set_span_in_context(self._span))

    def enter(self) -> None:
        self._token = context.attach(self._context)

    def leave(self) -> None:
        context.detach(self._token)

    def end(self, error: BaseException | None) -> None:
        seconds = perf_counter() - self._start
        if error is not None:
            # Only the class name: the text of an error comes from the plugin and may hold the data it worked with.
            self._attributes["error.type"] = type(error).__qualname__
            self._span.set_attribute("error.type", type(error).__qualname__)
            if not isinstance(error, asyncio.CancelledError):
                self._span.set_status(StatusCode.ERROR)
        attributes = {key: self._attributes[key] for key in _METRIC_ATTRIBUTES if key in self._attributes}
        self._durations.record(seconds, attributes, self._context)  # with the span's context, for exemplars
        self._span.end()


class _Instruments:
    """Instruments for the plugins of all `hosts`. They're read only when metrics are collected."""

    def __init__(self, meter: Meter) -> None:
        self.hosts: WeakSet[PluginHost] = WeakSet()
        self._snapshot: Sequence[PluginMetrics] = ()
        self._observed: set[str] | None = None  # readings that were taken from the snapshot
        for reading in READINGS:
            create = meter.create_observable_counter if reading.kind == "counter" else meter.create_observable_gauge
            create(reading.name, [self._callback(reading)], reading.unit, reading.meaning)
        meter.create_observable_counter(LOST, [self._lost], "{event}", LOST_MEANING)

    def _callback(self, reading: MetricReading) -> Callable[[CallbackOptions], Iterable[Measurement]]:
        def observe(_: CallbackOptions) -> Iterable[Measurement]:
            for plugin in self._measure(reading.name):
                value = reading.value(plugin)
                if value is not None:
                    yield Measurement(value, {"nyx.plugin.id": plugin.plugin, "nyx.isolation": plugin.isolation})

        return observe

    def _lost(self, _: CallbackOptions) -> Iterable[Measurement]:
        for host in tuple(self.hosts):
            for sink, count in host.audit_lost.items():
                yield Measurement(count, {"nyx.sink": sink})

    def _measure(self, name: str) -> Sequence[PluginMetrics]:
        """Returns one snapshot for all instruments of a collection; a repeated name begins the next collection."""
        if self._observed is None or name in self._observed:
            self._snapshot = [plugin for host in tuple(self.hosts) for plugin in host.metrics().values()]
            self._observed = set()
        self._observed.add(name)
        return self._snapshot


def _event_attributes(event: AuditEvent) -> _Attributes:
    attributes: _Attributes = {
        "nyx.kind": event.kind,
        "nyx.capability": event.capability,
        "nyx.action": event.action,
        "nyx.target": event.target,
        "nyx.allowed": event.allowed,
        "nyx.reason": event.reason,
        "nyx.layer": event.layer,
    }
    if event.plugin is not None:
        attributes["nyx.plugin.id"] = event.plugin
    if event.rule is not None:
        attributes["nyx.rule"] = event.rule
    if event.kind != "decision":
        return attributes
    if event.capability == "http" and "://" in event.target:
        attributes |= {"http.request.method": event.action, "url.full": event.target}
    elif event.capability == "files":
        attributes["file.path"] = event.target
    elif event.capability == "connect" and (match := _HOST_AND_PORT.fullmatch(event.target)):
        attributes |= {"server.address": match[1], "server.port": int(match[2])}
    return attributes
