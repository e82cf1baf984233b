"""Workers, forked and fresh, on processors that the operator chose, and choices that are refused."""

import os
import subprocess

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PluginLoadError
from tests.conformance.machine import missing, without_fork
from tests.plugin_fixtures import write_plugin

CODE = """
    import os

    class Main(Plugin):
        @export
        async def processors(self) -> list[int]: return sorted(os.sched_getaffinity(0))
    """
HERE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
pytestmark = pytest.mark.skipif(not HERE, reason="a process does not choose its processors here")
sealed = pytest.mark.skipif(bool(missing()), reason=f"no worker can be sealed: {missing()}")


@pytest.fixture
def folder(tmp_path):
    """A plugin that returns its processors."""
    return write_plugin(tmp_path / "plugins" / "p", CODE)


@sealed
@pytest.mark.parametrize("made", ["forked", "fresh"])
async def test_workers_run_on_the_chosen_processors(folder, tmp_path, monkeypatch, made):
    """The first one and the one that was made ahead do; the host stays where it is."""
    if len(HERE) < 2:
        pytest.skip("one processor")
    if made == "fresh":
        without_fork(monkeypatch)
    async with PluginHost(data_dir=tmp_path / "data", worker_cpus=[HERE[-1]]) as host:
        for _ in range(2):
            plugin = await host.load(folder, isolation="process")
            assert await plugin.call("processors") == [HERE[-1]]
            await host.unload(plugin.id)
    assert sorted(os.sched_getaffinity(0)) == HERE


@sealed
async def test_they_do_not_follow_their_host(folder, tmp_path):
    """A host restricted to one processor has workers on another; without a choice they run where it does."""
    if len(HERE) < 2:
        pytest.skip("one processor")
    try:
        os.sched_setaffinity(0, {HERE[0]})
        for cpus, found in ((HERE[1:], HERE[1:]), (None, HERE[:1])):
            async with PluginHost(data_dir=tmp_path / "data", worker_cpus=cpus) as host:
                plugin = await host.load(folder, isolation="process")
                assert await plugin.call("processors") == found
    finally:
        os.sched_setaffinity(0, HERE)


@sealed
@pytest.mark.parametrize("made", ["forked", "fresh"])
@pytest.mark.parametrize("others", [[], HERE[:1]], ids=["only", "also"])
async def test_a_missing_processor_is_an_error(folder, tmp_path, monkeypatch, made, others):
    """No worker runs elsewhere instead, and the process that was started is gone."""
    if made == "fresh":
        without_fork(monkeypatch)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **named: started.append(popen(*args, **named)) or started[-1]
    )
    async with PluginHost(data_dir=tmp_path / "data", worker_cpus=[*others, 8191]) as host:
        with pytest.raises(PluginLoadError, match=r"worker_cpus \[.*8191\]"):
            await host.load(folder, isolation="process")
    assert [process.poll() for process in started] == [-9]


async def test_level_inline_ignores_the_choice(folder, tmp_path):
    """It has no workers."""
    async with PluginHost(data_dir=tmp_path / "data", worker_cpus=[8191]) as host:
        plugin = await host.load(folder)
        assert await plugin.call("processors") == HERE


@pytest.mark.parametrize("cpus", [[], [-1], [8192], [1.0], ["1"], "01", [True]])
def test_an_invalid_processor_is_an_error_at_once(cpus):
    """The host refuses it before it starts anything."""
    with pytest.raises(ValueError, match="worker_cpus: expected one or more processor numbers"):
        PluginHost(worker_cpus=cpus)


def test_a_system_without_affinity_refuses_the_choice(monkeypatch):
    """As on macOS, whose kernel has no such call."""
    monkeypatch.setattr("nyx_stream.isolation.process.affinity.CAN_SET_AFFINITY", False)
    with pytest.raises(ValueError, match="does not let a process choose"):
        PluginHost(worker_cpus=[0])


def test_a_host_file_can_choose(folder, tmp_path):
    """`nyx.toml` has the same option as the constructor."""
    (tmp_path / "nyx.toml").write_text(f'worker_cpus = [{HERE[-1]}]\n[[plugins]]\nfrom = "plugins/p"\n')
    assert PluginHost.from_toml(tmp_path / "nyx.toml")._backends._cpus == {HERE[-1]}
