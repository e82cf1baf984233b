"""Fixtures and helpers for tests that load plugins: plugin folders, hosts, isolation levels, and waiting.

`tests/conftest.py` makes the fixtures available to every test.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from nyx_stream import PluginHost
from nyx_stream.audit import AuditEvent
from nyx_stream.host import Handle
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from tests.conformance.machine import missing, without_fork

LEVELS = ("inline", "process", "fresh")
"""`fresh` is level `process` where a fork is not safe: each worker is an interpreter of its own."""

_PAUSE = 0.0002
"""Seconds that `turn` sleeps: a busy loop would keep workers from the processor, and other threads from the GIL."""


@pytest.fixture
def events() -> list[AuditEvent]:
    """The audit events of `host`."""
    return []


@pytest.fixture
async def host(tmp_path: Path, events: list[AuditEvent]) -> AsyncIterator[PluginHost]:
    """An entered host without plugins."""
    async with PluginHost(audit=events.append, data_dir=tmp_path / "data") as host:
        yield host
    gc.collect()  # a coroutine or task that was left behind then warns in this test, not in a later one


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes a plugin folder: `make("weather", code, …)`."""

    def write(name: str, code: str, **more: str) -> Path:
        return write_plugin(tmp_path / "plugins" / name, code, **more)

    return write


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The isolation level under test. A test that uses it runs once at each level."""
    if request.param == "inline":
        return "inline"
    if reason := missing():
        pytest.skip(f"this machine cannot seal a process: {reason}")
    if request.param == "fresh":
        without_fork(monkeypatch)
    return "process"


@pytest.fixture
def load(host: PluginHost, make: Callable[..., Path], level: Any) -> Callable[..., Awaitable[Handle]]:
    """Writes a plugin and loads it at the level under test: `await load(code)`."""

    async def load(code: str, *, policy: Any = None, on_fail: Any = "disable", name: str = "p", **more: str) -> Handle:
        return await host.load(make(name, code, **more), policy=policy, isolation=level, on_fail=on_fail)

    return load


def write_plugin(
    folder: Path,
    code: str,
    *,
    plugin_id: str | None = None,
    permissions: str = "",
    limits: str = "",
    entry: str = "main:Main",
    **files: str,
) -> Path:
    """Writes a plugin whose entry module is `main.py`; `files` are further modules, by name, with `__` for `/`."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = f'id = "{plugin_id or folder.name}"\nversion = "1.0"\nentry = "{entry}"\n'
    manifest += f"[permissions]\n{dedent(permissions)}\n[limits]\n{dedent(limits)}\n"
    (folder / "plugin.toml").write_text(manifest)
    (folder / "main.py").write_text("from nyx_stream import Plugin, export\n" + dedent(code))
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/').replace('INIT', '__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


def record_of(handle: Handle) -> PluginRecord:
    """Returns the host's record of a plugin, for tests of its runs. Other tests use the handle's public attributes."""
    return handle._record


def run_of(handle: Handle) -> PluginRun:
    """Returns the current run of a plugin."""
    return handle._record.require_run()


def instance_of(handle: Handle) -> Any:
    """Returns the instance of the plugin's class, at level `inline`."""
    return run_of(handle).backend._plugin  # type: ignore[union-attr]  # the inline backend has one


async def until(condition: Callable[[], object]) -> None:
    """Runs the event loop until `condition` holds. It is checked after every turn, so that no state is missed."""
    while not condition():
        await turn()


async def turn() -> None:
    """Runs the event loop once, and lets other threads and processes run for a moment."""
    time.sleep(_PAUSE)  # noqa: ASYNC251  # it blocks the loop on purpose, briefly
    await asyncio.sleep(0)


def backend_of(host: PluginHost, level: str = "process") -> Any:
    """Returns what the plugins of one level of a host share, such as the zygote and the warm pool."""
    return host._backends.get("p", level)  # type: ignore[arg-type]  # tests name levels as text
