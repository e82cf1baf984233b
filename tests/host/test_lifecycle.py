"""The lifecycle table: every state is reachable, two states are final, and runs follow the table."""

import pytest

from nyx_stream.errors import PluginStateError
from nyx_stream.host import State
from nyx_stream.host.runtime.lifecycle import FINAL, TRANSITIONS, Event, Lifecycle


def reachable(state: State) -> set[State]:
    found, todo = {state}, [state]
    while todo:
        for following in TRANSITIONS[todo.pop()].values():
            if following not in found:
                found.add(following)
                todo.append(following)
    return found


def test_every_state_is_in_the_table_and_can_be_reached():
    """Every state has an entry, and can be reached from the first."""
    assert set(TRANSITIONS) == set(State) == reachable(State.DISCOVERED)


def test_every_run_can_end():
    """A final state can be reached from every state, and final states have no transitions."""
    assert {State.STOPPED, State.FAILED} == FINAL
    for state in State:
        assert reachable(state) & FINAL


def test_every_state_that_lives_can_fail():
    """Every state but the final ones has a transition to `failed`."""
    for state in set(State) - FINAL:
        assert TRANSITIONS[state][Event.FAIL] is State.FAILED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_only_what_the_table_has_happens(state, event):
    """An event without a transition raises, and the state stays."""
    lifecycle = Lifecycle("p")
    lifecycle.state = state
    if event in TRANSITIONS[state]:
        assert lifecycle.allows(event)
        lifecycle.apply(event)
        assert lifecycle.state is TRANSITIONS[state][event]
    else:
        assert not lifecycle.allows(event)
        with pytest.raises(PluginStateError, match=f"{event} is not possible while it is {state}"):
            lifecycle.apply(event)
        assert lifecycle.state is state


async def test_a_plugin_goes_through_the_states_in_order(host, make, events):
    """A plugin sees itself starting in setup, running in calls and stopping in teardown."""
    folder = make(
        "p",
        """
        class Main(Plugin):
            async def setup(self): self.log.warning("setup")
            @export
            async def work(self): return 1
            async def teardown(self): self.log.warning("teardown")
        """,
    )
    handle = await host.load(folder)
    assert handle.state is State.RUNNING
    assert await handle.call("work") == 1
    await host.unload("p")
    assert handle.state is State.STOPPED
    assert [event.action for event in events if event.layer == "host"] == ["load", "unload"]
