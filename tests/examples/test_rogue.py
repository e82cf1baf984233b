"""The hostile example: every attempt is refused and attributed to a layer."""

from types import SimpleNamespace

import pytest
from pydantic_core import to_jsonable_python

from nyx_stream.host import PluginHost
from tests.conformance.machine import missing


@pytest.mark.parametrize(("level", "fallback"), [("inline", "tripwire"), ("process", "kernel")])
async def test_every_attempt_is_refused_by_a_layer_and_audited(level, fallback, examples, tmp_path):
    """Every attempt is refused, and the audit log has a denial for each refusal by a layer in the host.

    The tripwire refuses bypasses inline, the kernel in a worker. The kernel does not report what it refuses.
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
    assert {attempt.layer for attempt in attempts} == {"guard", fallback}
    rules = {attempt.rule for attempt in attempts if attempt.rule is not None}
    assert rules == {str(tmp_path / "rogue" / "secret")}


async def test_the_plugin_keeps_running_and_writes_nothing_else(examples, tmp_path):
    """After all attempts the host still answers, and only the granted file was written."""
    async with PluginHost(data_dir=tmp_path) as host:
        rogue = await host.load(examples / "rogue", policy=examples / "rogue" / "policy.toml")
        first = [attempt.what async for attempt in rogue.stream("attack")]
        again = [attempt.what async for attempt in rogue.stream("attack")]
    assert first == again
    assert [path.name for path in (tmp_path / "rogue").iterdir()] == ["mine.txt"]
