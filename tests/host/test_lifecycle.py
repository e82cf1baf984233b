"""The table of states: complete, without dead ends but the two, and obeyed."""

import pytest

from nyx_stream.errors import PluginStateError
from nyx_stream.host.runtime.lifecycle import OVER, TABLE, Event, Lifecycle, State


def reachable(state: State) -> set[State]:
    found, todo = {state}, [state]
    while todo:
        for following in TABLE[todo.pop()].values():
            if following not in found:
                found.add(following)
                todo.append(following)
    return found


def test_every_state_is_in_the_table_and_can_be_reached():
    """No state is forgotten, none is unreachable from the first."""
    assert set(TABLE) == set(State) == reachable(State.DISCOVERED)


def test_every_life_can_end():
    """From every state one of the two last states can be reached, and nothing leads out of those."""
    assert {State.STOPPED, State.FAILED} == OVER
    for state in State:
        assert reachable(state) & OVER


def test_every_state_that_lives_can_fail():
    """A failure is never refused while there is something left to fail."""
    for state in set(State) - OVER:
        assert TABLE[state][Event.FAIL] is State.FAILED


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_only_what_the_table_has_happens(state, event):
    """An event either moves along the table or is an error that changes nothing."""
    life = Lifecycle("p")
    life.state = state
    if event in TABLE[state]:
        assert life.can(event)
        life.happen(event)
        assert life.state is TABLE[state][event]
    else:
        assert not life.can(event)
        with pytest.raises(PluginStateError, match=f"{event} is not possible while it is {state}"):
            life.happen(event)
        assert life.state is state


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
