"""Fixtures for hosts, and for OpenTelemetry with exporters in memory."""

from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nyx_stream import PluginHost
from nyx_stream.observe.otel import Telemetry
from tests.plugin_fixtures import write_plugin

__all__ = ["write_plugin"]


@dataclass
class Collected:
    """What was exported to memory."""

    telemetry: Telemetry
    tracers: TracerProvider
    span_exporter: InMemorySpanExporter
    log_exporter: InMemoryLogRecordExporter
    reader: InMemoryMetricReader

    @property
    def spans(self) -> list[Any]:
        """The spans that have ended."""
        return list(self.span_exporter.get_finished_spans())

    @property
    def logs(self) -> list[Any]:
        """The log records."""
        return [data.log_record for data in self.log_exporter.get_finished_logs()]

    def points(self) -> dict[str, list[Any]]:
        """Collects the metrics and returns the points by name."""
        data = self.reader.get_metrics_data()
        points: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "nyx_stream"
                for metric in scope.metrics:
                    points[metric.name] = list(metric.data.data_points)
        return points


@pytest.fixture
def collected():
    """Telemetry that exports to memory."""
    spans, logs, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
    tracers, loggers, meters = TracerProvider(), LoggerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=meters, logger_provider=loggers)
    yield Collected(telemetry, tracers, spans, logs, reader)
    tracers.shutdown()
    loggers.shutdown()
    meters.shutdown()


@pytest.fixture
async def host(tmp_path, collected):
    """A running host with logs, traces and metrics."""
    telemetry = collected.telemetry
    async with PluginHost(audit=telemetry.record, data_dir=tmp_path / "data", observer=telemetry) as host:
        telemetry.measure(host)
        yield host
