"""The host file: its plugins are loaded, and the errors of all its files are reported together."""

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PluginLoadError, PolicyError
from nyx_stream.host import State

GOOD = """
    class Main(Plugin):
        @export
        async def ping(self) -> str: return "pong"
    """


async def test_a_host_file_loads_its_plugins(make, tmp_path):
    """Relative paths are relative to the file's folder. A plugin that doesn't load is listed."""
    make("one", GOOD, permissions='write = ["$DATA"]')
    make("two", GOOD)
    make("broken", "1 / 0")
    (tmp_path / "one.toml").write_text('[allow]\nwrite = ["$DATA"]\n[limits]\nconcurrency = 2\n')
    (tmp_path / "nyx.toml").write_text(
        """
        audit = "audit.jsonl"
        data_dir = "data"
        [[plugins]]
        from = "plugins/one"
        policy = "one.toml"
        on_fail = "restart"
        [[plugins]]
        from = "plugins/broken"
        [[plugins]]
        from = "plugins/two"
        isolation = "inline"
        """
    )
    async with PluginHost.from_toml(tmp_path / "nyx.toml") as host:
        assert {name: status.state for name, status in host.plugins.items()} == {
            "one": State.RUNNING,
            "broken": State.FAILED,
            "two": State.RUNNING,
        }
        assert await host["one"].call("ping") == "pong"
        assert host["one"].grant.limits.concurrency == 2
        assert (tmp_path / "data" / "one").is_dir()
    assert (tmp_path / "audit.jsonl").read_text().count('"action":"load"') == 3


async def test_a_plugin_that_must_run_keeps_the_host_from_starting(make, tmp_path):
    """With on_fail = "abort", entering the host raises the plugin's error, and nothing keeps running."""
    make("one", GOOD)
    make("broken", "1 / 0")
    (tmp_path / "nyx.toml").write_text(
        '[[plugins]]\nfrom = "plugins/one"\n[[plugins]]\nfrom = "plugins/broken"\non_fail = "abort"\n'
    )
    host = PluginHost.from_toml(tmp_path / "nyx.toml")
    with pytest.raises(PluginLoadError, match="broken: main:Main does not import: ZeroDivisionError"):
        await host.__aenter__()
    assert dict(host.plugins) == {}


def test_every_error_of_all_files_comes_at_once(make, tmp_path):
    """Errors in the host file, policies and manifests are raised together, each with its file and line."""
    make("one", GOOD)
    make("same", GOOD, plugin_id="one")
    (make("bad", GOOD) / "plugin.toml").write_text('id = "Bad Id"\nversion = "1"\nentry = "main:Main"\n')
    (tmp_path / "bad.toml").write_text('[allow]\nconnect = ["*.com"]\n')
    (tmp_path / "nyx.toml").write_text(
        """[[plugins]]
from = "plugins/one"
policy = "bad.toml"
[[plugins]]
from = "plugins/bad"
[[plugins]]
from = "plugins/nowhere"
[[plugins]]
from = "plugins/one"
policy = "missing.toml"
[[plugins]]
from = "plugins/one"
[[plugins]]
from = "plugins/same"
"""
    )
    with pytest.raises(PolicyError) as caught:
        PluginHost.from_toml(tmp_path / "nyx.toml")
    places = {(problem.where.rpartition("/")[2], problem.line) for problem in caught.value.problems}
    assert places == {("bad.toml", 2), ("plugin.toml", 1), ("nyx.toml", 7), ("nyx.toml", 10), ("nyx.toml", 14)}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("colour = 1\n", "nyx.toml:1: colour: extra inputs are not permitted"),
        ('[[plugins]]\nfrom = "x"\non_fail = "cry"\n', "nyx.toml:3: plugins.on_fail: input should be 'restart'"),
        ('[[plugins]]\nfrom = "x"\nisolation = "none"\n', "nyx.toml:3: plugins.isolation: input should be 'inline'"),
        ("[[plugins]]\n", "plugins.from: field required"),
        ("plugins = 3\n", "nyx.toml:1: plugins: input should be a valid list"),
        ("tripwire = 'yes'\n", "nyx.toml:1: tripwire: input should be a valid boolean"),
        ("[[plugins]\n", "nyx.toml:1: not TOML"),
        ("tripwire = true\nworker_cpus = []\n", "nyx.toml:2: worker_cpus: expected one or more processor numbers"),
        ("worker_cpus = [-1]\n", "nyx.toml:1: worker_cpus: expected one or more processor numbers"),
        ("worker_cpus = '1'\n", "nyx.toml:1: worker_cpus: input should be a valid list"),
    ],
)
def test_a_faulty_host_file_names_the_place(tmp_path, text, place):
    """Unknown keys, wrong types and malformed TOML are errors with file, line and field."""
    (tmp_path / "nyx.toml").write_text(text)
    with pytest.raises(PolicyError) as caught:
        PluginHost.from_toml(tmp_path / "nyx.toml")
    assert place in str(caught.value)
