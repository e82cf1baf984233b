"""The lifecycle of one run of a plugin: a table of states and events, which decides every transition.

    discovered ── load ──> loaded ── start ──> starting ── ready ──> running
        │                    │                    │                    │
        │                    └───────── stop ─────┴──> stopping <─ stop┘
        │                                                 │ ended
      fail: failed (from every state but the final ones) stopped

`stopped` and `failed` are final: a reload or a restart begins a new run.
"""

from enum import StrEnum

from nyx_stream.errors import PluginStateError
from nyx_stream.host.observability.metrics import State


class Event(StrEnum):
    """Something that changes the state of a run."""

    LOAD = "load"
    START = "start"
    READY = "ready"
    STOP = "stop"
    ENDED = "ended"
    FAIL = "fail"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.DISCOVERED: {Event.LOAD: State.LOADED, Event.FAIL: State.FAILED},
    State.LOADED: {Event.START: State.STARTING, Event.STOP: State.STOPPING, Event.FAIL: State.FAILED},
    State.STARTING: {Event.READY: State.RUNNING, Event.STOP: State.STOPPING, Event.FAIL: State.FAILED},
    State.RUNNING: {Event.STOP: State.STOPPING, Event.FAIL: State.FAILED},
    State.STOPPING: {Event.ENDED: State.STOPPED, Event.FAIL: State.FAILED},
    State.STOPPED: {},
    State.FAILED: {},
}

FINAL = frozenset(state for state, events in TRANSITIONS.items() if not events)
"""The states without transitions."""


class Lifecycle:
    """The state of one run."""

    __slots__ = ("plugin", "state")

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.state = State.DISCOVERED

    def apply(self, event: Event) -> None:
        """Makes the transition. Raises `PluginStateError` if the table has none for `event` in this state."""
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise PluginStateError(self.plugin, f"{event} is not possible while it is {self.state}") from None

    def allows(self, event: Event) -> bool:
        """Whether `event` has a transition from this state."""
        return event in TRANSITIONS[self.state]
