"""Prometheus text: it can be parsed, labels are escaped, and the values are those of the host."""

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nyx_stream import PluginHost
from nyx_stream.observe.prometheus import PluginCollector, prometheus_text
from nyx_stream.observe.readings import READINGS
from nyx_stream.policy import SandboxPolicy
from tests.conformance.machine import sealed_here

CODE = """
class Main(Plugin):
    @export
    async def ping(self) -> None: ...
    @export
    async def peek(self) -> str: return await self.files.read_text("/etc/passwd")
"""


def read(text):
    """Returns the families by name, and the samples by name and labels."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    return families, samples


def failing_sink(event):
    """A sink that always raises."""
    raise RuntimeError


async def test_the_text_has_the_values_of_the_host(make, tmp_path):
    """Every family has help and type, and its values are those of `Handle.metrics`."""
    async with PluginHost(audit=failing_sink, data_dir=tmp_path / "data") as host:
        handle = await host.load(make("p", CODE, permissions='write = ["$DATA"]'), policy=SandboxPolicy.locked_down())
        for _ in range(3):
            await handle.call("ping")
        with pytest.raises(PermissionError):
            await handle.call("peek")
        text, found = prometheus_text(host), handle.metrics()
    families, samples = read(text)
    assert all(family.documentation for family in families.values())
    assert {family.type for family in families.values()} == {"counter", "gauge", "summary"}
    plugin = ("plugin", "p")
    assert samples["nyx_plugin_info", ("isolation", "inline"), plugin, ("version", "1.0")] == 1
    assert samples["nyx_plugin_up", plugin] == 1
    assert samples["nyx_plugin_calls_total", plugin] == 4
    assert samples["nyx_plugin_call_errors_total", plugin] == samples["nyx_plugin_denials_total", plugin] == 1
    assert samples["nyx_plugin_call_duration_seconds_count", plugin] == 4
    assert samples["nyx_plugin_call_duration_seconds_sum", plugin] == found.latency.seconds
    assert samples["nyx_plugin_call_duration_seconds", plugin, ("quantile", "0.9")] == found.latency.p90
    assert samples["nyx_audit_lost_total", ("sink", "failing_sink")] == 2
    assert not [name for name, *_ in samples if "memory" in name or "cpu" in name]


async def test_what_was_not_measured_has_no_sample(make, tmp_path):
    """Denials need an audit, and quantiles need calls; reporting zero would be wrong."""
    async with PluginHost(data_dir=tmp_path / "data") as host:
        await host.load(make("p", CODE))
        _, samples = read(prometheus_text(host))
    assert ("nyx_plugin_denials_total", ("plugin", "p")) not in samples
    assert not [key for key in samples if ("quantile", "0.5") in key]


@sealed_here
async def test_a_sealed_plugin_has_memory_and_processor_time(make, tmp_path):
    """Both are measured for its process."""
    async with PluginHost(data_dir=tmp_path / "data") as host:
        await host.load(make("p", CODE), isolation="process")
        _, samples = read(prometheus_text(host))
    assert samples["nyx_plugin_memory_bytes", ("plugin", "p")] > 1 << 20
    assert ("nyx_plugin_cpu_time_seconds_total", ("plugin", "p")) in samples


async def test_no_label_breaks_out_of_its_quotes(tmp_path):
    """The path of a log may have any character, and is parsed back unchanged."""
    path = tmp_path / 'a"} 1\nforged{x="\\'
    async with PluginHost(audit=path, data_dir=tmp_path / "data") as host:
        families, samples = read(prometheus_text(host))
    assert "forged" not in families
    assert samples["nyx_audit_lost_total", ("sink", str(path))] == 0


async def test_a_collector_joins_a_registry_of_the_application(make, tmp_path):
    """It is collected with the application's metrics, and yields nothing once the host is closed."""
    registry = CollectorRegistry()
    Counter("of_the_application", "Its own.", registry=registry)
    async with PluginHost(data_dir=tmp_path / "data") as host:
        registry.register(PluginCollector(host))
        await host.load(make("p", CODE))
        _, samples = read(generate_latest(registry).decode())
        assert ("of_the_application_total",) in samples
        assert ("nyx_plugin_up", ("plugin", "p")) in samples
    _, samples = read(generate_latest(registry).decode())
    assert not [name for name, *_ in samples if name.startswith("nyx_plugin")]


def test_names_follow_the_rules_of_both_formats():
    """OpenTelemetry names have dots, Prometheus names underscores and base units; each name is unique."""
    names = [reading.name for reading in READINGS]
    assert len(set(names)) == len(names)
    for reading in READINGS:
        assert reading.name.startswith("nyx.plugin.")
        assert reading.prometheus_name.isidentifier()
        assert not reading.prometheus_name.endswith("_total")
        assert reading.meaning.endswith(".")
