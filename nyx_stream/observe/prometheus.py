"""The metrics of a host in Prometheus' text format. Needs the extra `prometheus`."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from nyx_stream.host import PluginHost, PluginMetrics
from nyx_stream.observe.readings import LATENCY, LATENCY_MEANING, LOST, LOST_MEANING, READINGS, MetricReading

__all__ = ["CONTENT_TYPE", "PluginCollector", "prometheus_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of what `prometheus_text` returns."""


class PluginCollector(Collector):
    """A host as a collector of prometheus_client: `REGISTRY.register(PluginCollector(host))`.

    Every series has the label `plugin`. The quantiles of a duration cover the plugin's last 512 calls. The collector
    may run on any thread, and yields no series of plugins once the host is closed.
    """

    def __init__(self, host: PluginHost) -> None:
        self._host = host

    def describe(self) -> Iterator[Metric]:
        """Yields the families without measuring anything."""
        yield from _families((), {})

    def collect(self) -> Iterator[Metric]:
        """Measures every plugin."""
        yield from _families(tuple(self._host.metrics().values()), self._host.audit_lost)


def prometheus_text(host: PluginHost) -> str:
    """Returns the metrics of a host in the text exposition format, version 0.0.4."""
    registry = CollectorRegistry()
    registry.register(PluginCollector(host))
    return generate_latest(registry).decode()


def _families(plugins: tuple[PluginMetrics, ...], lost: Mapping[str, int]) -> Iterator[Metric]:
    info = InfoMetricFamily("nyx_plugin", "Version and isolation level.", labels=("plugin",))
    for plugin in plugins:
        info.add_metric((plugin.plugin,), {"version": plugin.version, "isolation": plugin.isolation})
    yield info
    for reading in READINGS:
        yield _family(reading, plugins)
    yield _durations(plugins)
    lost_events = CounterMetricFamily(LOST.replace(".", "_"), LOST_MEANING, labels=("sink",))
    for sink, count in lost.items():
        lost_events.add_metric((sink,), count)
    yield lost_events


def _family(reading: MetricReading, plugins: tuple[PluginMetrics, ...]) -> Metric:
    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    family = kind(reading.prometheus_name, reading.meaning, labels=("plugin",))
    for plugin in plugins:
        value = reading.value(plugin)
        if value is not None:
            family.add_metric((plugin.plugin,), value)
    return family


def _durations(plugins: tuple[PluginMetrics, ...]) -> Metric:
    name = f"{LATENCY.replace('.', '_')}_seconds"
    family = SummaryMetricFamily(name, LATENCY_MEANING, labels=("plugin",))
    for plugin in plugins:
        latency = plugin.latency
        for quantile, value in (("0.5", latency.p50), ("0.9", latency.p90), ("0.99", latency.p99)):
            if value is not None:
                family.add_sample(name, {"plugin": plugin.plugin, "quantile": quantile}, value)
        family.add_metric((plugin.plugin,), latency.calls, latency.seconds)
    return family
