"""Discovery in folders and installed distributions, without importing a plugin's code."""

import os
import sys

import pytest

from nyx_stream.errors import ManifestError, PluginLoadError, PluginNotFound
from nyx_stream.host import discover, find

CODE = """
import sys
sys.modules["nyx_test_imported"] = sys
from nyx_stream import Plugin, export
from nyx_test_dist.words import WORD
from . import words
import json

class Main(Plugin):
    @export
    async def say(self) -> str:
        import nyx_test_dist.words as again
        assert again.WORD == words.WORD == WORD
        return WORD + json.dumps(1)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A directory of installed distributions on the import path, with one plugin."""
    site = tmp_path / "site-packages"
    install(site, "nyx-test-dist", "nyx_test_dist", "shipped")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("nyx_test_imported", None)


def install(site, name, package, plugin, *, entry=None, manifest=True, listed=True):
    folder = site / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package itself is not to be imported globally')\n")
    (folder / "main.py").write_text(CODE)
    (folder / "words.py").write_text("WORD = 'word'\n")
    entry = entry or f"{package}.main:Main"
    if manifest:
        (folder / "plugin.toml").write_text(f'id = "{plugin}"\nversion = "1.0"\nentry = "{package}.main:Main"\n')
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nyx.plugins]\n{plugin} = {entry}\n")
    files = [f"{package}/__init__.py", f"{package}/main.py", f"{package}/words.py"]
    if listed and manifest:
        files.append(f"{package}/plugin.toml")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_an_installed_plugin_is_found_by_its_id_without_importing_it(site):
    """The manifest of a distribution is read from its files; none of its modules is imported."""
    source = find("shipped")
    assert source.manifest.entry == "nyx_test_dist.main:Main"
    assert source.distribution == "nyx-test-dist"
    assert source.folder == os.path.realpath(site / "nyx_test_dist")
    assert "nyx_test_imported" not in sys.modules
    assert not [name for name in sys.modules if name.startswith("nyx_test_dist")]


async def test_an_installed_plugin_runs_with_its_package_as_its_own(host, site):
    """Its package is imported privately, by its own name and relatively; nothing of it is left or global."""
    (site / "nyx_test_dist" / "__init__.py").write_text("")
    handle = await host.load("shipped")
    assert await handle.call("say") == "word1"
    assert host.plugins["shipped"].distribution == "nyx-test-dist"
    await handle.reload()
    assert await handle.call("say") == "word1"
    await host.unload("shipped")
    assert not [name for name in sys.modules if name.startswith("nyx_test_dist")]


def test_a_plugin_installed_in_place_is_found_beside_its_package(site):
    """An editable install doesn't list its files, so the manifest is searched for in the package's folder."""
    install(site, "nyx-test-edit", "nyx_test_edit", "edited", listed=False)
    assert find("edited").manifest.id == "edited"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"manifest": False}, "bad: its distribution has no plugin.toml in the package nyx_test_bad"),
        ({"entry": "nyx_test_bad.other:Main"}, "bad: plugin.toml has id 'bad' and entry 'nyx_test_bad.main:Main', not"),
    ],
)
def test_a_distribution_without_a_fitting_manifest_is_an_error(site, changes, text):
    """The distribution must have a manifest that agrees with the entry point."""
    install(site, "nyx-test-bad", "nyx_test_bad", "bad", **changes)
    with pytest.raises(PluginLoadError) as caught:
        find("bad")
    assert text in str(caught.value)


def test_discover_lists_folders_and_distributions_and_the_errors_of_bad_ones(site, make, tmp_path):
    """A wrong manifest doesn't hide other plugins. Folders without a manifest are skipped."""
    make("one", "")
    (make("two", "") / "plugin.toml").write_text("id = 3\n")
    (tmp_path / "plugins" / "three").mkdir()
    found = list(discover(tmp_path / "plugins"))
    assert [source.manifest.id for source in found if not isinstance(source, Exception)] == ["one", "shipped"]
    assert [type(error) for error in found if isinstance(error, Exception)] == [ManifestError]


def test_what_is_not_there_is_not_found(tmp_path):
    """The error says whether a name or a path was not found."""
    with pytest.raises(PluginNotFound, match="nothing: there is no such folder, and no installed distribution"):
        find("nothing")
    with pytest.raises(PluginNotFound, match="no such plugin folder"):
        find(tmp_path / "nothing")
