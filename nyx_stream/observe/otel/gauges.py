"""The readings of hosts as instruments that are asked when metrics are collected, and cost nothing in between."""

from collections.abc import Callable, Iterable, Sequence
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from nyx_stream.host import PluginHost, PluginMetrics
from nyx_stream.observe.readings import LOST, LOST_MEANING, READINGS, Reading

_Callback = Callable[[CallbackOptions], Iterable[Observation]]


class Gauges:
    """Instruments for the plugins of every host that was added, as long as it lives."""

    def __init__(self, meter: Meter) -> None:
        self._hosts: WeakSet[PluginHost] = WeakSet()
        self._measured: Sequence[PluginMetrics] = ()
        self._given: set[str] | None = None  # the readings that were taken from it
        for reading in READINGS:
            create = meter.create_observable_counter if reading.kind == "counter" else meter.create_observable_gauge
            create(reading.name, [self._callback(reading)], reading.unit, reading.meaning)

        meter.create_observable_counter(LOST, [self._lost], "{event}", LOST_MEANING)

    def add(self, host: PluginHost) -> None:
        """Begins to measure a host."""
        self._hosts.add(host)

    def _callback(self, reading: Reading) -> _Callback:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for found in self._measure(reading.name):
                value = reading.value(found)
                if value is not None:
                    yield Observation(value, {"nyx.plugin.id": found.plugin, "nyx.isolation": found.isolation})

        return observe

    def _lost(self, _: CallbackOptions) -> Iterable[Observation]:
        for host in tuple(self._hosts):
            for sink, count in host.audit_lost.items():
                yield Observation(count, {"nyx.sink": sink})

    def _measure(self, name: str) -> Sequence[PluginMetrics]:
        """Measures once for all instruments of one collection: it is over when one is asked again."""
        if self._given is None or name in self._given:
            self._measured = [found for host in tuple(self._hosts) for found in host.metrics().values()]
            self._given = set()
        self._given.add(name)
        return self._measured
