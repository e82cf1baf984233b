"""A plugin that runs code that tests pass to it, in a host with the tripwire."""

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import TripwireDenied
from tests.plugin_fixtures import write_plugin

CODE = """
import asyncio, os, socket, subprocess, threading, sys

class Main(Plugin):
    @export
    async def run(self, code: str) -> str:
        names = {"self": self}
        source = "async def attack(self):\\n" + "".join(f"    {line}\\n" for line in code.splitlines())
        exec(source, globals() | names, names)
        return repr(await names["attack"](self))
"""


class Attacker:
    """The plugin, and what the host recorded about it."""

    def __init__(self, handle, events):
        self.handle = handle
        self.events = events

    async def run(self, code):
        """Runs the body of an async function as the plugin; returns the repr of its result."""
        return await self.handle.call("run", code=code)

    @property
    def denied(self):
        return [event for event in self.events if not event.allowed]

    async def refused(self, code, capability, action, target="", raises=TripwireDenied):
        """Runs an attack that the tripwire must refuse and record, with everything that an operator needs.

        A library may catch the refusal and try something else, which is refused too: the first record counts.
        """
        before = len(self.denied)
        with pytest.raises(raises) as caught:
            await self.run(code)
        event = self.denied[before]
        assert {event.layer for event in self.denied[before:]} == {"tripwire"}
        assert (event.plugin, event.layer, event.capability) == ("rogue", "tripwire", capability)
        assert event.action == action
        assert target in event.target
        assert "bypassed its capabilities" in event.reason
        assert raises is not TripwireDenied or "denied" in str(caught.value)
        return event


@pytest.fixture
async def rogue(tmp_path):
    """The attacker, loaded and running."""
    events = []
    folder = write_plugin(tmp_path / "rogue", CODE)
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        yield Attacker(await host.load(folder), events)
