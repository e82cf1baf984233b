"""The state and status of a plugin, as the host reports them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from nyx_stream.isolation.backend import Level

OnFail: TypeAlias = Literal["restart", "disable", "abort"]
"""What the host does when a running plugin fails: restart it, leave it failed, or exit with its error."""


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
