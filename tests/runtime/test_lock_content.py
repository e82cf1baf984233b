"""What is imported is what was hashed: a host with a lock file runs nothing else, at once or later, at every level."""

import importlib.util
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import ContentChanged, PluginCallError, PluginLoadError
from nyx_stream.host.lockfile import verification
from tests.host.test_discovery import install

CODE = """
    import helper
    class Main(Plugin):
        @export
        async def which(self) -> int: return helper.NUMBER
        @export
        async def late(self) -> int:
            import pack.later
            return pack.later.NUMBER
    """


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "nyx.lock"


@pytest.fixture
def folder(make):
    return make("p", CODE, helper="NUMBER = 1", pack__INIT="", pack__later="NUMBER = 1")


@pytest.fixture
async def host(tmp_path, events, lock):
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data", lock=lock) as host:
        yield host


@pytest.fixture
def between(monkeypatch):
    """Has something done after the hash and before the import: `between(act)`."""

    def between(act):
        really = verification.verify

        def admit(*arguments):
            verdict = really(*arguments)
            act()
            return verdict

        monkeypatch.setattr(verification, "verify", admit)

    return between


def shadow(folder):
    (folder / "helper").mkdir()
    (folder / "helper" / "__init__.py").write_text("NUMBER = 2")


def link_elsewhere(folder):
    (folder.parent / "evil.py").write_text("NUMBER = 2")
    (folder / "helper.py").unlink()
    (folder / "helper.py").symlink_to(folder.parent / "evil.py")


def link_to_another(folder):
    (folder / "helper.py").unlink()
    (folder / "helper.py").symlink_to("pack/__init__.py")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "helper.py").write_text("NUMBER = 2"), "has changed since the host hashed"),
        (lambda folder: (folder / "main.py").write_text("x = 1"), "has changed since the host hashed"),
        (shadow, "is new since the host hashed"),
        (link_elsewhere, ""),  # the tripwire, or the seal, is first
        (link_to_another, "has changed since the host hashed"),
    ],
)
async def test_what_changed_after_the_hash_is_not_imported(host, folder, level, between, lock, change, says):
    """The start fails, nothing of it ran, and nothing is recorded; the next start looks again."""
    between(lambda: change(folder))
    with pytest.raises(PluginLoadError, match=f"does not import: .*{says}"):
        await host.load(folder, isolation=level)
    assert not lock.exists()


async def test_a_module_that_is_imported_late_is_compared_too(host, folder, level):
    """The running version imports only accepted code."""
    plugin = await host.load(folder, isolation=level)
    later = folder / "pack" / "later.py"
    later.write_text("NUMBER = 2")
    with pytest.raises(PluginCallError, match=r"later\.py has changed"):
        await plugin.call("late")
    later.write_text("NUMBER = 1")
    assert await plugin.call("late") == 1
    assert await plugin.call("which") == 1


async def test_a_manifest_that_changed_before_the_hash_is_refused(host, folder, lock, monkeypatch):
    """Accepted content does not run with what another manifest wants."""
    really, manifest = verification.read_content, folder / "plugin.toml"
    accepted = manifest.read_text()

    def read_content(source):
        manifest.write_text(accepted)
        return really(source)

    manifest.write_text(accepted.replace("[permissions]", '[permissions]\nconnect = ["evil.example"]'))
    monkeypatch.setattr(verification, "read_content", read_content)
    with pytest.raises(PluginLoadError, match=r"its plugin\.toml changed while the plugin was read"):
        await host.load(folder)
    assert not lock.exists()
    assert await (await host.load(folder)).call("which") == 1


async def test_links_within_the_plugin_are_imported(host, folder, level):
    """To a module, a folder, and a file of another name; the manifest may be one as well."""
    (folder / "pack").rename(folder / "packed")
    (folder / "pack").symlink_to("packed")
    (folder / "helper.py").rename(folder / "helper.txt")
    (folder / "helper.py").symlink_to("helper.txt")
    (folder / "plugin.toml").rename(folder / "plugin.base")
    (folder / "plugin.toml").symlink_to("plugin.base")
    plugin = await host.load(folder, isolation=level)
    assert [await plugin.call("which"), await plugin.call("late")] == [1, 1]


async def test_an_extension_module_is_compared(host, make, between):
    """Before the system loads it."""
    spec = importlib.util.find_spec("_bisect")
    if spec is None or not spec.has_location or spec.origin is None:
        pytest.skip("this interpreter has its extension modules built in")
    folder = make("p", "import _bisect as own\nclass Main(Plugin):\n    NAME = own.__name__")
    copy = folder / Path(spec.origin).name
    shutil.copy(spec.origin, copy)
    await host.load(folder)
    await host.unload("p")

    def append():
        with open(copy, "ab") as file:
            file.write(b"\0")

    between(append)
    with pytest.raises(PluginLoadError, match="has changed"):
        await host.load(folder)


async def test_an_installed_plugin_is_compared(host, tmp_path, monkeypatch, level):
    """Its modules lie in a package that others are beside."""
    site = tmp_path / "site-packages"
    install(site, "nyx-test-lock", "nyx_test_lock", "shipped")
    package = site / "nyx_test_lock"
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(dedent(CODE).replace("import ", "from nyx_test_lock import ", 1) + "\n")
    main = package / "main.py"
    main.write_text("from nyx_stream import Plugin, export\n" + main.read_text().replace("pack.", "nyx_test_lock."))
    (package / "helper.py").write_text("NUMBER = 1")
    (package / "later.py").write_text("NUMBER = 1")
    monkeypatch.syspath_prepend(str(site))
    plugin = await host.load("shipped", isolation=level)
    assert [await plugin.call("which"), await plugin.call("late")] == [1, 1]
    (package / "helper.py").write_text("NUMBER = 2")
    with pytest.raises(ContentChanged):
        await plugin.reload()
    (package / "helper.py").write_text("NUMBER = 1")
    await plugin.reload()
    (package / "later.py").write_text("NUMBER = 2")
    with pytest.raises(PluginCallError, match=r"later\.py has changed"):
        await plugin.call("late")


async def test_without_a_lock_file_a_late_import_takes_what_is_there(tmp_path, folder, level):
    """Under development, as before."""
    async with PluginHost(data_dir=tmp_path / "other") as host:
        plugin = await host.load(folder, isolation=level)
        (folder / "pack" / "later.py").write_text("NUMBER = 2")
        assert await plugin.call("late") == 2
