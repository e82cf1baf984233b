"""What a host reports about a plugin, as frozen values: its state, status, counts and metrics."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from time import monotonic
from typing import Literal, TypeAlias

from nyx_stream.errors import PluginBusy, PluginTimeout
from nyx_stream.isolation.backend import Level

OnFail: TypeAlias = Literal["restart", "disable", "abort"]
"""What the host does when a running plugin fails: restart it, leave it failed, or exit with its error."""

RECENT_CALLS = 512
"""Number of calls whose durations are kept for the quantiles."""


class State(StrEnum):
    """The state of a plugin. `runtime/lifecycle.py` has the transitions."""

    DISCOVERED = "discovered"
    """Its manifest was read; none of its code ran."""
    LOADED = "loaded"
    """Its grant and its guard were made; none of its code ran."""
    STARTING = "starting"
    """Its code is imported and `setup` runs."""
    RUNNING = "running"
    """It takes calls."""
    STOPPING = "stopping"
    """It takes no more calls; running calls are ended, then `teardown` runs."""
    STOPPED = "stopped"
    """It has ended, and all its resources were released."""
    FAILED = "failed"
    """It didn't start, or it crashed. Its resources were released, or are about to be."""


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A version on disk that the lock file doesn't allow to run until it is accepted.

    Attributes:
        version: of its manifest.
        content: its content hash.
        reason: why it may not run yet.
    """

    version: str
    content: str
    reason: str


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One line of `PluginHost.plugins`.

    Attributes:
        id: of the plugin.
        state: its state.
        isolation: the level at which it runs.
        folder: absolute path of the directory of its manifest.
        version: of its manifest.
        distribution: name of the installed distribution that it comes from, or `None` for a plugin folder.
        methods: the exported methods by name: whether each is a stream. `None` before the first start.
        error: why it failed, escaped and safe to print.
        traceback: where it failed, escaped and safe to print.
        waiting: the update that the host's lock file holds back. The accepted version may be running meanwhile.
    """

    id: str
    state: State
    isolation: Level
    folder: str
    version: str | None = None
    distribution: str | None = None
    methods: Mapping[str, bool] | None = None
    error: str | None = None
    traceback: str | None = None
    waiting: PendingUpdate | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Durations of calls, including queueing and failed calls. Streams and refused calls have none.

    Attributes:
        calls: calls that ended since the plugin was loaded.
        seconds: the sum of their durations.
        p50: seconds that half of the last calls (at most 512) didn't exceed; `None` before the first.
        p90: the same for nine of ten of them.
        p99: the same for 99 of 100 of them.
    """

    calls: int
    seconds: float
    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class PluginStats:
    """Counts since the plugin was loaded. Reloads and restarts don't reset them.

    Attributes:
        calls: calls and streams that were requested.
        failed: those that raised, timeouts included.
        timeouts: those that exceeded their timeout.
        refused: those refused because the queue was full.
        active: those that run now.
        waiting: those that are queued now.
        seconds: the sum of the durations of calls (not streams), including failed ones.
        denied: decisions against the plugin, by every layer; `None` for a host without an audit.
        restarts: restarts after a crash.
    """

    calls: int
    failed: int
    timeouts: int
    refused: int
    active: int
    waiting: int
    seconds: float
    denied: int | None
    restarts: int


@dataclass(frozen=True, slots=True)
class PluginMetrics:
    """What a plugin did and uses. Counts start when it is loaded; reloads and restarts don't reset them.

    Attributes:
        plugin: its id.
        version: of its manifest.
        isolation: the level at which it runs.
        state: its state.
        stats: calls, failures, denials and restarts; see `PluginStats`.
        latency: the durations of its calls.
        requests: HTTP requests that its leases allowed.
        opens: files that it opened.
        bytes_in: bytes of HTTP that it received, including headers and framing. Bytes that it reads from open files or
            connections of `self.connect` aren't counted: at level `process` the host doesn't see them.
        bytes_out: the same for bytes sent.
        memory: resident bytes of its process; `None` without a process of its own. At level `inline` it shares the
            host's memory and processor time, which can't be attributed.
        cpu_seconds: user and system processor time of its process since its start; `None` as for `memory`.
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


@dataclass(slots=True)
class CallCount:
    """Counts the calls of one plugin since it was loaded; all its runs share one count."""

    calls: int = 0
    failed: int = 0
    timeouts: int = 0
    refused: int = 0
    """Calls refused because the queue was full."""
    timed: int = 0
    """Calls that ended in any way; neither streams nor refused calls."""
    seconds: float = 0.0
    """The sum of their durations, including queueing."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_CALLS))
    """The durations of the last of them."""

    def add_failure(self, error: BaseException, started: float | None = None) -> None:
        """Counts a call that raised; `started` is when it began, and `None` for a stream."""
        if isinstance(error, PluginBusy):
            self.refused += 1
            return
        self.failed += 1
        self.timeouts += isinstance(error, PluginTimeout)
        if started is not None:
            self.timed += 1
            self.seconds += (duration := monotonic() - started)
            self.recent.append(duration)

    def latency(self) -> Latency:
        """Returns the sum and the quantiles (nearest rank) of the durations. Can be called on any thread."""
        ordered = sorted(self.recent.copy())  # `copy` is atomic: the event loop's thread may append meanwhile
        p50, p90, p99 = (ordered[ceil(len(ordered) * p) - 1] if ordered else None for p in (0.5, 0.9, 0.99))
        return Latency(self.timed, self.seconds, p50, p90, p99)
