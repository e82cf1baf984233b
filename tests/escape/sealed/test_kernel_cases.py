"""Every kernel attack, from plugin code inside a sealed worker: it is refused, and the worker continues.

The attacks are those of `tests/escape/kernel`, which also shows that each succeeds in a free process. Here they run as
a plugin's own modules. Attacks that need preparation before sealing are left out: a plugin has no such moment.
"""

import os
import platform
import shutil
from pathlib import Path

import pytest

from nyx_stream import PluginHost
from nyx_stream.errors import PluginCrashed
from tests.conformance.machine import missing
from tests.escape.kernel import attack, attacks_code, attacks_files, attacks_kernel, attacks_network
from tests.plugin_fixtures import write_plugin

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (attacks_code, attacks_files, attacks_kernel, attacks_network)
}

# A sealed plugin may map executable memory: without that, no extension module could be loaded.
ALLOWED = {"executable_memory_by_python", "executable_memory_by_mprotect"}

CODE = """
    import errno, os, threading
    from tests.escape.kernel import attack, attacks_code, attacks_files, attacks_kernel, attacks_network

    class Main(Plugin):
        @export
        async def attempt(self, module: str, name: str, where: str) -> str:
            os.chdir(where)
            try:
                found = globals()[module].attacks.attacks[name]
                found = found.attempt(found.setup())
            except OSError as error:
                return errno.errorcode.get(error.errno) or f"{type(error).__name__}: {error}"
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return f"succeeded: {found!r}"[:500]
        @export
        async def thread(self) -> int:
            ran = []
            thread = threading.Thread(target=ran.append, args=(1,))
            thread.start()
            thread.join()
            return len(ran)
    """


@pytest.fixture
async def host(tmp_path):
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    async with PluginHost(data_dir=tmp_path / "data") as host:
        yield host


@pytest.fixture
def folder(tmp_path):
    """A plugin with the attacks, and the directories that they expect."""
    folder = write_plugin(tmp_path / "p", CODE, limits='memory = "512MiB"')
    package = folder / "tests" / "escape" / "kernel"
    package.mkdir(parents=True)
    for module in (*MODULES.values(), attack):
        shutil.copy(module.__file__, package / Path(module.__file__).name)
    where = tmp_path / "room"
    where.mkdir()
    before = Path.cwd()
    os.chdir(where)
    try:
        attack.prepare()
    finally:
        os.chdir(before)
    return folder


def unprepared(module: str) -> dict[str, attack.Attack]:
    """The attacks that need no preparation before sealing."""
    nothing = attack.AttackList.add.__kwdefaults__["setup"].__qualname__
    return {name: it for name, it in MODULES[module].attacks.attacks.items() if it.setup.__qualname__ == nothing}


@pytest.mark.parametrize("module", MODULES)
async def test_every_attack_is_refused(host, folder, tmp_path, module):
    """Each attack of a kind is refused; afterwards the plugin still has its threads and takes calls."""
    plugin = await host.load(folder, isolation="process")
    for name, case in unprepared(module).items():
        if name in ALLOWED:
            continue
        answer = await plugin.call("attempt", module=module, name=name, where=str(tmp_path / "room"))
        # EPERM too where another layer answers: here no path at all may be written, so that the filter is first.
        assert answer.startswith((*case.answers, "EPERM")), f"{name}: {answer}"
    assert await plugin.call("thread") == 1


async def test_a_foreign_system_call_ends_the_worker(host, folder, tmp_path):
    """A 32-bit system call kills the worker, and the host reports the signal."""
    if "int_0x80" not in attacks_kernel.attacks.attacks or platform.machine() != "x86_64":
        pytest.skip("only x86-64 has a second entrance")
    plugin = await host.load(folder, isolation="process")
    with pytest.raises(PluginCrashed, match="its process was killed by SIGSYS"):
        await plugin.call("attempt", module="attacks_kernel", name="int_0x80", where=str(tmp_path / "room"))
