"""What a host tells about a plugin, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nyx_stream.host.runtime.lifecycle import State
from nyx_stream.isolation.backend import Level

OnFail: TypeAlias = Literal["restart", "disable", "abort"]
"""What follows when a plugin fails: it is started again, it stays failed, or the host ends with its error."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What lies where a plugin is loaded from, and may not run before somebody accepts it: `reason` says why."""

    version: str
    content: str
    reason: str


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One line of the host's listing. `error` and `traceback` say why it failed, escaped, safe to print.

    `waiting` is what the host's lock file keeps from running; the plugin may be running in its accepted version.
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
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class PluginStats:
    """Counts since the plugin was loaded; a reload goes on counting.

    Attributes:
        calls: calls and streams that were asked for.
        failed: those that raised, timeouts included.
        timeouts: those that took too long.
        refused: those turned away because the queue was full.
        active: those that run now.
        waiting: those that wait for room now.
        seconds: time spent inside calls (not streams), all together, failed ones too.
        denied: decisions against the plugin, of every layer; `None` for a host without an audit.
        restarts: times that it was started again after a crash.
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
