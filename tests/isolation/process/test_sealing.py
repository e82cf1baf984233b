"""What a sealed worker has: what it was given, nothing inherited, and nothing if it cannot be sealed."""

import dataclasses
import os
import signal

import psutil
import pytest

from nyx_core.sandbox import Confinement
from nyx_stream.errors import PluginCallError, PluginLoadError
from nyx_stream.isolation.process import backend as process
from nyx_stream.isolation.process import seal as sealing
from nyx_stream.isolation.process.priority import NICE
from nyx_stream.isolation.process.seal import SealRefused, judge
from nyx_stream.isolation.remote.host.seal_record import read_report
from nyx_stream.isolation.remote.wire.messages import Order, Sealed
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
    """Four descriptors and those of its event loop, no variable that was not granted, no terminal, one thread."""
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


async def test_a_worker_goes_with_its_parent_and_cannot_change_that(load):
    """The kernel will kill it when its parent ends: set before it was sealed, and not its own to clear."""
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


async def test_imports_work_lazily_and_reading_stops_there(load, tmp_path):
    """The interpreter, its packages and the plugin's own folder can be read at any time; nothing beside them."""
    (tmp_path / "secret").write_text("secret")
    plugin = await load(CODE, late="WORD = 'late'")
    assert await plugin.call("lazily") == "late"
    own = tmp_path / "plugins" / "p" / "plugin.toml"
    assert await plugin.call("reads", path=str(own)) == own.read_text()[:10]
    for path in (tmp_path / "secret", "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ"):
        assert await plugin.call("reads", path=str(path)) == "PermissionError", path
    for path in ("/", "/proc", "/home", os.getcwd(), tmp_path / "data"):
        assert await plugin.call("lists", path=str(path)) in ("PermissionError", "FileNotFoundError"), path


async def test_the_report_is_what_was_asked_for(load):
    """The host has the worker's report: every layer in force, every witness refused, memory above the baseline."""
    plugin = await load(CODE, limits='memory = "100MiB"')
    level = plugin._record.run.backend
    states = {layer["name"]: layer["state"] for layer in level.report["layers"]}
    assert {states[name] for name in sealing.REQUIRED} == {"active"}
    assert all(result["refused"] for result in level.report["witness"])
    (memory,) = (limit for limit in level.report["limits"] if limit["name"] == "memory")
    assert memory["hard"] > 100 * 2**20 + 10 * 2**20
    assert psutil.Process(level._pid).rlimit(psutil.RLIMIT_AS) == (memory["soft"], memory["hard"])


async def test_a_worker_that_cannot_be_sealed_is_not_run(load, host, monkeypatch, events):
    """A layer that fails is named, and no code of the plugin runs; if degrade is allowed, the audit says so."""
    ordered = process.confinement_of

    def impossible(*args, **kwargs) -> Confinement:
        confinement = ordered(*args, **kwargs)
        return dataclasses.replace(confinement, readable=(*confinement.readable, "/nonexistent/nyx"))

    monkeypatch.setattr(process, "confinement_of", impossible)
    code = "print('running')\nclass Main(Plugin):\n    @export\n    async def ping(self) -> int: return 1"
    with pytest.raises(PluginLoadError, match="its process cannot be sealed: layer landlock is unavailable: ENOENT"):
        await load(code)
    plugin = await load(code, name="other", policy=SandboxPolicy().allow_degraded())
    assert await plugin.call("ping") == 1
    (event,) = [event for event in events if event.capability == "sandbox"]
    assert (event.plugin, event.kind, event.allowed) == ("other", "report", False)
    assert event.reason.startswith("not in force: landlock (ENOENT: ")


async def test_what_was_applied_and_tried_is_one_record(load, events):
    """One record for each start: the system, the layers, the limits, what was tried; short enough to be kept whole."""
    await load(CODE, limits='memory = "100MiB"')
    (event,) = [event for event in events if event.kind == "report"]
    assert (event.plugin, event.capability, event.action, event.layer) == ("p", "sandbox", "seal", "host")
    assert event.allowed
    assert event.target.startswith(f"linux {os.uname().release} {os.uname().machine}, landlock_abi ")
    told = dict(part.split(": ", 1) for part in event.reason.split("; "))
    assert "not in force" not in told
    assert set(told["in force"].split(", ")) == sealing.REQUIRED | {"process"}
    assert set(told["not asked for"].split(", ")) == {"cgroup", "namespaces", "privileges"}
    limits = [limit.split()[0] for limit in told["limits"].split(", ")]
    assert limits == ["memory", "processes", "open_files", "cpu_seconds", "core"]
    assert {"unshare(0)", "execve", "TCP socket", "list /"} <= set(told["tried and refused"].split(", "))
    assert told["descriptors"] == "0 1 2 3"
    assert len(event.reason) < 1500


@pytest.mark.parametrize("changes", [{"layers": [{}]}, {"limits": [{"name": "memory"}]}, {"facts": {"abi": []}}])
def test_a_report_that_cannot_be_kept_is_refused(changes):
    """What the record is made of is read as strictly as what is judged."""
    _, sealed = reported(**changes)
    with pytest.raises(SealRefused, match="cannot be read"):
        read_report(sealed.report)


def reported(**changes: object) -> tuple[Order, Sealed]:
    """An order, and the report of a worker that carried it out, but for `changes`."""
    order = Order(
        plugin="p", entry="p:P", folder="/p", root="/p", names=None, places={}, env={},
        confinement=Confinement(), memory=1000, setup_timeout=1.0,
    )  # fmt: skip
    digest = sealing._limited(order.confinement, 500 + 1000).digest()
    report = {
        "policy_hash": digest,
        "layers": [
            {"name": name, "state": "active", "reason": "", "stand_in": ""} for name in sorted(sealing.REQUIRED)
        ],
        "witness": [{"act": "clone", "refused": True}],
        "descriptors": [0, 1, 2, 3],
    }
    return order, Sealed(report=report | changes, baseline=500)


def test_a_report_as_ordered_is_taken():
    """Nothing is missing."""
    assert judge(*reported()) == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"policy_hash": "0" * 64}, "another confinement"),
        ({"layers": []}, "not in force: not reported"),
        ({"layers": [{"name": "seccomp", "state": "unavailable", "reason": "no", "stand_in": ""}]}, "not in force"),
        ({"witness": []}, "no witness"),
        ({"witness": [{"act": "clone", "refused": False}]}, "one that got through"),
        ({"descriptors": [0, 1, 2, 3, 9]}, r"holds the descriptors \[0, 1, 2, 3, 9\]"),
        ({"descriptors": None}, "holds the descriptors None"),
        ({"layers": "none"}, "cannot be read"),
    ],
)
def test_any_other_report_is_refused(changes, text):
    """A worker whose report is not what was asked for gets no code to run."""
    with pytest.raises(SealRefused, match=text):
        judge(*reported(**changes))


async def test_a_worker_gives_way_to_its_host(load):
    """It has a lower priority than its host, and cannot take it back."""
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
