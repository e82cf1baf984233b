"""The hostile example: refused in everything, by somebody, and on record."""

from types import SimpleNamespace

import pytest
from pydantic_core import to_jsonable_python

from nyx_stream.host import PluginHost
from tests.conformance.machine import missing


@pytest.mark.parametrize(("level", "behind"), [("inline", "tripwire"), ("process", "kernel")])
async def test_every_attempt_is_refused_by_a_layer_and_audited(level, behind, examples, tmp_path):
    """No attempt works or fails for another reason; the record has a denial for each that a layer in the host refused.

    What goes round the capabilities meets the tripwire inline and the kernel in a worker; the kernel tells nobody.
    """
    if level == "process" and (reason := missing()):
        pytest.skip(f"this machine cannot seal a process: {reason}")
    events = []
    async with PluginHost(audit=events.append, data_dir=tmp_path) as host:
        rogue = await host.load(examples / "rogue", policy=examples / "rogue" / "policy.toml", isolation=level)
        attempts = [SimpleNamespace(**to_jsonable_python(attempt)) async for attempt in rogue.stream("attack")]
    assert len(attempts) > 50
    assert [attempt for attempt in attempts if not attempt.refused] == []
    for layer in ("guard", "tripwire"):
        refused = sum(attempt.layer == layer for attempt in attempts)
        assert refused == sum(not event.allowed and event.layer == layer for event in events), layer
    assert {attempt.layer for attempt in attempts} == {"guard", behind}
    rules = {attempt.rule for attempt in attempts if attempt.rule is not None}
    assert rules == {str(tmp_path / "rogue" / "secret")}


async def test_the_plugin_lives_on_and_leaves_no_trace(examples, tmp_path):
    """After all of it the host still answers, and nothing was written but what is granted."""
    async with PluginHost(data_dir=tmp_path) as host:
        rogue = await host.load(examples / "rogue", policy=examples / "rogue" / "policy.toml")
        first = [attempt.what async for attempt in rogue.stream("attack")]
        again = [attempt.what async for attempt in rogue.stream("attack")]
    assert first == again
    assert [path.name for path in (tmp_path / "rogue").iterdir()] == ["mine.txt"]
