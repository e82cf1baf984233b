"""A sealed worker has what it was given and inherits nothing; one that can't be sealed isn't run."""

import dataclasses
import os
import signal

import psutil
import pytest

from nyx_core.sandbox import Confinement
from nyx_stream.errors import PluginCallError, PluginLoadError
from nyx_stream.isolation.remote.host import backend as remote
from nyx_stream.isolation.remote.host.handshake import SealRefused, judge
from nyx_stream.isolation.remote.wire.confinement import REQUIRED_LAYERS, with_memory
from nyx_stream.isolation.remote.wire.messages import Order, Sealed
from nyx_stream.isolation.remote.worker.seal import NICE
from nyx_stream.policy import SandboxPolicy

CODE = """
    import os, signal, sys, threading

    class Main(Plugin):
        @export
        async def inherited(self) -> dict[str, object]:
            os.umask(mask := os.umask(0))
            return {
                "descriptors": [number for number in range(256) if is_open(number)],
                "environment": dict(os.environ),
                "directory": os.getcwd(),
                "umask": mask,
                "leader": os.getsid(0) == os.getpid(),
                "terminal": has_terminal(),
                "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                "threads": threading.active_count(),
                "input": os.read(0, 1) == b"",
            }
        @export
        async def lazily(self) -> str:
            import colorsys, sqlite3, xml.dom.minidom
            import late
            return late.WORD
        @export
        async def reads(self, path: str) -> str:
            try:
                with open(path) as file: return file.read(10)
            except OSError as error: return type(error).__name__
        @export
        async def lists(self, path: str) -> str:
            try: return str(len(os.listdir(path)))
            except OSError as error: return type(error).__name__

    def is_open(number):
        try: os.fstat(number)
        except OSError: return False
        return True

    def has_terminal():
        try: os.open("/dev/tty", os.O_RDWR)
        except OSError: return False
        return True
    """


async def test_a_worker_inherits_nothing(load, monkeypatch):
    """Four descriptors and those of its event loop, no variable that wasn't granted, no terminal, one thread."""
    monkeypatch.setenv("NYX_TEST_SECRET", "s3cret")
    monkeypatch.setenv("NYX_TEST_GRANTED", "yes")
    held = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        asks = 'env = ["NYX_TEST_GRANTED"]'
        plugin = await load(CODE, permissions=asks, policy=SandboxPolicy().allow_env("NYX_TEST_GRANTED"))
        found = await plugin.call("inherited")
    finally:
        os.close(held)
    assert found["descriptors"][:4] == [0, 1, 2, 3]
    assert len(found["descriptors"]) == 7  # the selector of the event loop, and its pair of sockets
    announced = {"NO_SUBPROCESS": "1", "NO_NETWORK": "1", "NO_FILESYSTEM_WRITE": "1"}
    assert found["environment"] == {"NYX_TEST_GRANTED": "yes"} | announced
    assert (found["directory"], found["umask"], found["leader"], found["terminal"]) == ("/", 0o077, True, False)
    assert (found["blocked"], found["threads"], found["input"]) == (0, 1, True)


async def test_a_worker_dies_with_its_parent_and_cannot_change_that(load):
    """The kernel kills it when its parent ends: that is set before it is sealed, and it can't clear it."""
    code = """
        import os
        from nyx_core.linux.libc import address_of, prctl

        class Main(Plugin):
            @export
            async def parent_death_signal(self) -> int:
                found = bytearray(4)
                prctl(2, address_of(found))
                return int.from_bytes(found, "little")
            @export
            async def clear(self) -> int: return prctl(1, 0)
        """
    plugin = await load(code)
    with pytest.raises(PluginCallError, match="PermissionError"):
        await plugin.call("clear")
    assert await plugin.call("parent_death_signal") == signal.SIGKILL


async def test_imports_work_later_and_nothing_else_can_be_read(load, tmp_path):
    """The interpreter, its packages and the plugin's own folder can be read at any time; nothing else can."""
    (tmp_path / "secret").write_text("secret")
    plugin = await load(CODE, late="WORD = 'late'")
    assert await plugin.call("lazily") == "late"
    own = tmp_path / "plugins" / "p" / "plugin.toml"
    assert await plugin.call("reads", path=str(own)) == own.read_text()[:10]
    for path in (tmp_path / "secret", "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ"):
        assert await plugin.call("reads", path=str(path)) == "PermissionError", path
    for path in ("/", "/proc", "/home", os.getcwd(), tmp_path / "data"):
        assert await plugin.call("lists", path=str(path)) in ("PermissionError", "FileNotFoundError"), path


async def test_the_report_matches_the_order(load):
    """Every layer is in force, every attempt was refused, and the memory limit is above the baseline."""
    plugin = await load(CODE, limits='memory = "100MiB"')
    level = plugin._record.run.backend
    states = {layer["name"]: layer["state"] for layer in level.report["layers"]}
    assert {states[name] for name in REQUIRED_LAYERS} == {"active"}
    assert all(result["refused"] for result in level.report["witness"])
    (memory,) = (limit for limit in level.report["limits"] if limit["name"] == "memory")
    assert memory["hard"] > 100 * 2**20 + 10 * 2**20
    assert psutil.Process(level.pid).rlimit(psutil.RLIMIT_AS) == (memory["soft"], memory["hard"])


async def test_a_worker_that_cannot_be_sealed_is_not_run(load, host, monkeypatch, events):
    """The failed layer is named and no plugin code runs; if degrade is allowed, the audit event names it."""
    ordered = remote.confinement_of

    def impossible(*args, **kwargs) -> Confinement:
        confinement = ordered(*args, **kwargs)
        return dataclasses.replace(confinement, readable=(*confinement.readable, "/nonexistent/nyx"))

    monkeypatch.setattr(remote, "confinement_of", impossible)
    code = "print('running')\nclass Main(Plugin):\n    @export\n    async def ping(self) -> int: return 1"
    with pytest.raises(PluginLoadError, match="its process cannot be sealed: layer landlock is unavailable: ENOENT"):
        await load(code)
    plugin = await load(code, name="other", policy=SandboxPolicy().allow_degraded())
    assert await plugin.call("ping") == 1
    (event,) = [event for event in events if event.capability == "sandbox"]
    assert (event.plugin, event.kind, event.allowed) == ("other", "report", False)
    assert event.reason.startswith("not in force: landlock (ENOENT: ")


async def test_sealing_is_one_audit_event(load, events):
    """One event for each start: the system, layers, limits and attempts, short enough not to be truncated."""
    await load(CODE, limits='memory = "100MiB"')
    (event,) = [event for event in events if event.kind == "report"]
    assert (event.plugin, event.capability, event.action, event.layer) == ("p", "sandbox", "seal", "host")
    assert event.allowed
    assert event.target.startswith(f"linux {os.uname().release} {os.uname().machine}, landlock_abi ")
    summary = dict(part.split(": ", 1) for part in event.reason.split("; "))
    assert "not in force" not in summary
    assert set(summary["in force"].split(", ")) == REQUIRED_LAYERS | {"process"}
    assert set(summary["not asked for"].split(", ")) == {"cgroup", "namespaces", "privileges"}
    limits = [limit.split()[0] for limit in summary["limits"].split(", ")]
    assert limits == ["memory", "processes", "open_files", "cpu_seconds", "core"]
    assert {"unshare(0)", "execve", "TCP socket", "list /"} <= set(summary["tried and refused"].split(", "))
    assert summary["descriptors"] == "0 1 2 3"
    assert len(event.reason) < 1500


@pytest.mark.parametrize("changes", [{"layers": [{}]}, {"limits": [{"name": "memory"}]}, {"facts": {"abi": []}}])
def test_a_report_that_cannot_be_recorded_is_refused(changes):
    """The parts for the audit event are validated as strictly as those that are judged."""
    with pytest.raises(SealRefused, match="cannot be read"):
        judge(*reported(**changes))


def reported(**changes: object) -> tuple[Order, Sealed]:
    """An order, and the report of a worker that carried it out, with `changes`."""
    order = Order(
        plugin="p", entry="p:P", folder="/p", root="/p", names=None, places={}, env={},
        confinement=Confinement(), memory=1000, setup_timeout=1.0,
    )  # fmt: skip
    digest = with_memory(order.confinement, 500 + 1000).digest()
    report = {
        "policy_hash": digest,
        "layers": [{"name": name, "state": "active", "reason": "", "stand_in": ""} for name in sorted(REQUIRED_LAYERS)],
        "witness": [{"act": "clone", "refused": True}],
        "descriptors": [0, 1, 2, 3],
    }
    return order, Sealed(report=report | changes, baseline=500)


def test_a_report_as_ordered_is_accepted():
    """Nothing is missing."""
    _, missing = judge(*reported())
    assert missing == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"policy_hash": "0" * 64}, "another confinement"),
        ({"layers": []}, "not in force: not reported"),
        ({"layers": [{"name": "seccomp", "state": "unavailable", "reason": "no", "stand_in": ""}]}, "not in force"),
        ({"witness": []}, "attempted no forbidden act"),
        ({"witness": [{"act": "clone", "refused": False}]}, "or one was not refused"),
        ({"descriptors": [0, 1, 2, 3, 9]}, r"holds the descriptors \[0, 1, 2, 3, 9\]"),
        ({"descriptors": None}, "holds the descriptors None"),
        ({"layers": "none"}, "cannot be read"),
    ],
)
def test_any_other_report_is_refused(changes, text):
    """A worker whose report doesn't match its order gets no code to run."""
    with pytest.raises(SealRefused, match=text):
        judge(*reported(**changes))


async def test_a_worker_has_a_lower_priority_than_its_host(load):
    """It can't raise it again."""
    code = """
        import os

        class Main(Plugin):
            @export
            async def niceness(self) -> int: return os.getpriority(os.PRIO_PROCESS, 0)
            @export
            async def raised(self) -> int: return os.nice(-1)
        """
    plugin = await load(code)
    assert await plugin.call("niceness") == max(NICE, os.getpriority(os.PRIO_PROCESS, 0))
    with pytest.raises(PluginCallError, match="PermissionError"):
        await plugin.call("raised")
