"""What a host measures about one plugin, as a frozen value of plain numbers. Knows no format and no exporter."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from nyx_stream.capabilities.lease import Tally
from nyx_stream.host.observability.status import PluginStats
from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.host.runtime.limits import CallCount
from nyx_stream.isolation.backend import Level, Measured


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls took, waiting for room included, failed ones too. Streams and calls that were refused have none.

    Attributes:
        calls: how many ended since the plugin was loaded.
        seconds: how long they took, all together.
        p50: seconds that half of the last calls, 512 at most, did not exceed; `None` before the first.
        p90: the same for nine of ten of them.
        p99: the same for 99 of 100 of them.
    """

    calls: int
    seconds: float
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class PluginMetrics:
    """What a plugin did and uses. Counts are those since it was loaded; reloads and restarts go on counting.

    Attributes:
        plugin: its id.
        version: of its manifest.
        isolation: where it runs.
        state: where it stands.
        stats: calls, failures, timeouts, calls under way and waiting, denials, restarts; see `PluginStats`.
        latency: how long its calls took.
        requests: HTTP requests that its leases let pass.
        opens: opened files.
        bytes_in: bytes of HTTP that arrived for it, heads and framing included. What it does with an open file or over
            a connection of `self.connect` is not counted: at level `process` the host does not see it.
        bytes_out: the same for bytes that left.
        memory: resident bytes of its process; `None` where it has none of its own: at level `inline` memory and
            processor are the host's, and nobody can tell whose.
        cpu_seconds: processor time of its process, user and system, since that was started; `None` as for `memory`.
    """

    plugin: str
    version: str
    isolation: Level
    state: State
    stats: PluginStats
    latency: Latency
    requests: int
    opens: int
    bytes_in: int
    bytes_out: int
    memory: int | None
    cpu_seconds: float | None


def latency_of(count: CallCount) -> Latency:
    """Returns what is known of the durations of calls. Can be called on any thread."""
    ordered = sorted(count.recent.copy())  # copied in one step of C: the loop's thread adds meanwhile
    p50, p90, p99 = (_quantile(ordered, share) for share in (0.5, 0.9, 0.99))
    return Latency(count.timed, count.seconds, p50, p90, p99)


def metrics_of(
    plugin: str,
    version: str,
    isolation: Level,
    state: State,
    stats: PluginStats,
    count: CallCount,
    tally: Tally,
    level: object,
) -> PluginMetrics:
    """Puts together what different parts of the host know; `level` is the `Isolation` in use, if there is one."""
    usage = level.usage() if isinstance(level, Measured) else None
    return PluginMetrics(
        plugin=plugin,
        version=version,
        isolation=isolation,
        state=state,
        stats=stats,
        latency=latency_of(count),
        requests=tally["requests"],
        opens=tally["opens"],
        bytes_in=tally["bytes_in"],
        bytes_out=tally["bytes_out"],
        memory=usage.memory if usage is not None else None,
        cpu_seconds=usage.cpu_seconds if usage is not None else None,
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Returns the smallest value that a share of the values does not exceed (nearest rank)."""
    return ordered[ceil(len(ordered) * share) - 1] if ordered else None
