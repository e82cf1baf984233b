"""Several hosts with one lock file keep each other's records."""

import subprocess
import sys

import pytest

from nyx_stream import PluginHost
from nyx_stream.host import Answer
from nyx_stream.host.lockfile.file import LockedPlugin, LockFile
from tests.plugin_fixtures import record_of
from tests.runtime.sharing import CONTENT

CODE = """
    class Main(Plugin):
        @export
        async def ask(self, target: str) -> bool: return bool(await self.request("connect", target))
    """
RULES = ["one.example.com", "two.example.com", "three.example.com"]


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "nyx.lock"


@pytest.fixture
def folder(make):
    asked = ", ".join(f'{{rule = "{rule}", optional = true}}' for rule in RULES)
    return make("p", CODE, permissions=f"connect = [{asked}]")


def recorded(lock):
    return sorted(item.rule for item in LockFile(lock).read()["p"].approvals)


async def yes(_question):
    return Answer.always()


def test_two_processes_that_approve_at_once_lose_nothing(lock):
    """The file has all 200 rules of each process."""
    with LockFile(lock).changing() as plugins:
        plugins["p"] = LockedPlugin(version="1", content=CONTENT, permissions=[])
    command = [sys.executable, "-m", "tests.runtime.sharing", str(lock)]
    both = [
        subprocess.Popen([*command, name, "200"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]
    assert recorded(lock) == sorted(f"{name}{number}.example.com" for name in "ab" for number in range(200))


async def test_hosts_that_approve_different_things_keep_both(tmp_path, folder, lock):
    """The file has the approvals of both hosts, and the next host restores them."""
    async with (
        PluginHost(data_dir=tmp_path / "a", lock=lock, approver=yes) as first,
        PluginHost(data_dir=tmp_path / "b", lock=lock, approver=yes) as second,
    ):
        one, other = await first.load(folder), await second.load(folder)
        assert await one.call("ask", target=RULES[0])
        assert await other.call("ask", target=RULES[1])
        assert await one.call("ask", target=RULES[2])
        assert recorded(lock) == sorted(RULES)
    async with PluginHost(data_dir=tmp_path / "a", lock=lock) as host:
        plugin = await host.load(folder)
        assert sorted(item.rule for item in plugin.approvals) == sorted(RULES)


async def test_what_one_host_took_back_the_other_does_not_write_again(tmp_path, folder, lock):
    """The other host still has it in memory when it records another approval."""
    async with (
        PluginHost(data_dir=tmp_path / "a", lock=lock, approver=yes) as first,
        PluginHost(data_dir=tmp_path / "b", lock=lock, approver=yes) as second,
    ):
        one, other = await first.load(folder), await second.load(folder)
        assert await one.call("ask", target=RULES[0])
        assert await other.forget("connect", RULES[0]) == 1
        assert await one.call("ask", target=RULES[1])
        assert recorded(lock) == [RULES[1]]


async def test_the_later_answer_for_one_rule_counts(tmp_path, folder, lock):
    """It replaces the earlier answer in the file."""
    async with PluginHost(data_dir=tmp_path / "a", lock=lock, approver=yes) as host:
        plugin = await host.load(folder)
        for _ in range(2):
            assert await plugin.call("ask", target=RULES[0])
            record_of(plugin).approvals.remove()  # here only, not in the file
        assert recorded(lock) == [RULES[0]]
