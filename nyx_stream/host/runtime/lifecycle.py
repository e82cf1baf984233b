"""The life of one loaded plugin as a table. Everything that decides about states is in this file; it does nothing.

    discovered ── load ──> loaded ── start ──> starting ── ready ──> running
        │                    │                    │                    │
        │                    └───────── stop ─────┴──> stopping <─ stop┘
        │                                                 │ ended
      fail: failed (from any state but the last two)    stopped

A reload is a new life: `stopped` and `failed` are the ends of one.
"""

from enum import StrEnum

from nyx_stream.errors import PluginStateError


class State(StrEnum):
    """Where a plugin stands."""

    DISCOVERED = "discovered"
    """Its manifest was read; none of its code ran."""
    LOADED = "loaded"
    """Its grant and its guard are made; none of its code ran."""
    STARTING = "starting"
    """Its code is imported and `setup` runs."""
    RUNNING = "running"
    """It takes calls."""
    STOPPING = "stopping"
    """It takes no more calls; what runs is being ended, then `teardown` runs."""
    STOPPED = "stopped"
    """Nothing of it is left."""
    FAILED = "failed"
    """It could not start, or it crashed; nothing of it is left, or is about to be."""


class Event(StrEnum):
    """What happens to a plugin."""

    LOAD = "load"
    START = "start"
    READY = "ready"
    STOP = "stop"
    ENDED = "ended"
    FAIL = "fail"


TABLE: dict[State, dict[Event, State]] = {
    State.DISCOVERED: {Event.LOAD: State.LOADED, Event.FAIL: State.FAILED},
    State.LOADED: {Event.START: State.STARTING, Event.STOP: State.STOPPING, Event.FAIL: State.FAILED},
    State.STARTING: {Event.READY: State.RUNNING, Event.STOP: State.STOPPING, Event.FAIL: State.FAILED},
    State.RUNNING: {Event.STOP: State.STOPPING, Event.FAIL: State.FAILED},
    State.STOPPING: {Event.ENDED: State.STOPPED, Event.FAIL: State.FAILED},
    State.STOPPED: {},
    State.FAILED: {},
}

OVER = frozenset(state for state, events in TABLE.items() if not events)
"""States that nothing leads out of."""


class Lifecycle:
    """The state of one plugin."""

    __slots__ = ("plugin", "state")

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.state = State.DISCOVERED

    def happen(self, event: Event) -> None:
        """Moves on. Raises `PluginStateError` if the table has no such event here."""
        try:
            self.state = TABLE[self.state][event]
        except KeyError:
            raise PluginStateError(self.plugin, f"{event} is not possible while it is {self.state}") from None

    def can(self, event: Event) -> bool:
        """Whether `event` may happen now."""
        return event in TABLE[self.state]
