"""The files capability under terms."""

import asyncio

import pytest

from nyx_stream.errors import Revoked
from nyx_stream.policy.limits import parse_terms
from tests.capabilities.files.conftest import World


async def test_the_file_after_the_last_is_refused_and_audited(world: World) -> None:
    """Opened, read or written whole, each is one; looking at names is free."""
    world.lease.limit(parse_terms("files", {"opens": 3}))
    await world.files.read_bytes("f")
    await world.files.write_text("g", "new")
    async with world.files.open("f") as file:
        assert await file.read() == "inside"
    assert await world.files.exists("f")
    for operation in (world.files.read_text("f"), world.files.write_bytes("h", b""), world.files.open("f")):
        world.events.clear()
        with pytest.raises(Revoked, match="used up: opens 3"):
            await operation
        assert [(event.allowed, event.reason) for event in world.events] == [(False, "used up: opens 3")]
    assert not (world.inside / "h").exists()


async def test_an_open_file_ends_when_the_time_is_over(world: World) -> None:
    """What is called on it afterwards says so."""
    async with world.files.open("f") as file:
        ended = asyncio.Event()
        world.lease.hold(ended.set)
        world.lease.limit({"ttl": 0.01})
        await asyncio.wait_for(ended.wait(), 30)
        with pytest.raises(Revoked, match=r"expired: its 0\.01s are over"):
            await file.read()
    with pytest.raises(Revoked, match="expired"):
        await world.files.read_text("f")
