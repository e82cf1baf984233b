"""The face of this room: where logs, traces and metrics of a host are handed to OpenTelemetry."""

from opentelemetry import metrics, trace
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber, get_logger_provider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from nyx_stream.audit import AuditEvent
from nyx_stream.audit.redaction import printable, summary
from nyx_stream.host import PluginHost
from nyx_stream.host.observability.call_observer import Call, Observation
from nyx_stream.observe.otel.attributes import of_event
from nyx_stream.observe.otel.calls import Calls, add_event
from nyx_stream.observe.otel.gauges import Gauges
from nyx_stream.observe.readings import LATENCY

SCOPE = "nyx_stream"
"""Name of the instrumentation scope."""

_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds; of the buckets that are proposed for the durations of calls."""

_LATEST = 1e12


class Telemetry:
    """Hands what hosts do to OpenTelemetry; each of the three by itself, or all.

        telemetry = Telemetry()
        host = PluginHost(audit=["audit.jsonl", telemetry.record], observer=telemetry)
        telemetry.measure(host)

    No text of an error, no argument, no result, no query string and no credential is handed on.

    Args:
        tracer_provider: takes the spans; by default the global one.
        meter_provider: takes the metrics; by default the global one.
        logger_provider: takes the log records; by default the global one.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        meter = (meter_provider or metrics.get_meter_provider()).get_meter(SCOPE)
        tracer = (tracer_provider or trace.get_tracer_provider()).get_tracer(SCOPE)
        durations = meter.create_histogram(
            LATENCY,
            "s",
            "How long calls took, waiting for room included.",
            explicit_bucket_boundaries_advisory=_BOUNDS,
        )
        self._calls = Calls(tracer, durations)
        self._gauges = Gauges(meter)
        self._logger = (logger_provider or get_logger_provider()).get_logger(SCOPE)

    def record(self, event: AuditEvent) -> None:
        """An `AuditSink`: one log record for each event, and an event in the span of the call that it belongs to."""
        safe = printable(event)
        severity = SeverityNumber.INFO if safe.allowed else SeverityNumber.WARN
        self._logger.emit(
            LogRecord(
                timestamp=int(safe.time * 1e9) if 0 <= safe.time < _LATEST else None,
                severity_number=severity,
                severity_text=severity.name,
                body=summary(safe),
                attributes=of_event(safe),
                event_name=f"nyx.{safe.kind}",
            )
        )
        add_event(safe)

    def begin(self, call: Call) -> Observation:
        """An `Observer`: a span and a duration for each call."""
        return self._calls.begin(call)

    def measure(self, host: PluginHost) -> None:
        """Begins to export the metrics of a host's plugins, until the host is closed or forgotten."""
        self._gauges.add(host)
