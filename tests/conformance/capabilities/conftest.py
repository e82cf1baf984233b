"""One plugin with all cases, loaded once per module at each level, under one policy, before one server."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nyx_stream import PluginHost
from nyx_stream.audit import AuditEvent
from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.loopback import NamedNetwork, Server
from tests.conformance.capabilities.server import answer
from tests.conformance.machine import missing, without_fork
from tests.plugin_fixtures import LEVELS

PLUGIN = Path(__file__).parent / "plugin"
INSIDE = "10.1.2.3"
CLOSED = "93.184.215.99"


@dataclass
class Level:
    """The plugin at one level, and what its host recorded."""

    name: str
    handle: Any
    root: str
    events: list[AuditEvent] = field(default_factory=list)

    async def run(self, module: str, case: str) -> tuple[Any, list[tuple[str, ...]]]:
        """Runs a case: what it returned, and what was recorded meanwhile."""
        self.events.clear()
        told = await self.handle.call("run", module=module, case=case)
        told = json.loads(json.dumps(told).replace(self.root, ""))
        return told, sorted(self._plain(event) for event in self.events if not _is_pooled(module, event))

    def _plain(self, event: AuditEvent) -> tuple[str, ...]:
        words = (event.capability, event.action, event.target, event.allowed, event.rule, event.reason, event.layer)
        return tuple(str(word).replace(self.root, "") for word in words)


def _is_pooled(module: str, event: AuditEvent) -> bool:
    """Whether an event tells of a connection of the HTTP pool: when one is made anew depends on the time."""
    return module in ("http", "narrow") and event.capability == "connect" and event.allowed


def policy() -> SandboxPolicy:
    """A little is granted."""
    return (
        SandboxPolicy.locked_down()
        .allow_connect_host("granted.example", "127.0.0.1", "closed.example", "inside.example")
        .allow_request("http://pages.example/**")
        .deny_connect_host("denied.example")
        .allow_path_prefix("$DATA")
        .allow_path_prefix("$PLUGIN", mode="r")
        .deny_path_prefix("$DATA/denied")
        .allow_env("NYX_GRANTED", "NYX_NOT_ASKED")
        .with_limits(
            response_bytes=4_000_000,
            request_bytes=2_000_000,
            read_bytes=1_000_000,
            open_files=8,
            connections=4,
            redirects=3,
            call_timeout="20s",
        )
    )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """As everywhere, but one loop for a module: its hosts live as long."""
    return "asyncio"


@pytest.fixture(scope="module")
async def levels(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Level]]:
    """The plugin at every level that this machine has."""
    environment = pytest.MonkeyPatch()
    for name in ("NYX_GRANTED", "NYX_ASKED", "NYX_NOT_ASKED"):
        environment.setenv(name, name.lower())
    found: dict[str, Level] = {}
    async with Server(answer) as server:
        hosts = []
        for name in LEVELS:
            if name != "inline" and missing():
                continue
            if name == "fresh":
                without_fork(environment)
            root = tmp_path_factory.mktemp(f"{name:_<8}")  # one length: hints align their columns by the paths
            network = NamedNetwork(
                server.port, {"inside.example": [[INSIDE]], "closed.example": [[CLOSED]]}, dead=frozenset({CLOSED})
            )
            events: list[AuditEvent] = []
            host = PluginHost(audit=events.append, data_dir=root, network=network)
            hosts.append(await host.__aenter__())
            handle = await host.load(PLUGIN, policy=policy(), isolation="inline" if name == "inline" else "process")
            found[name] = Level(name, handle, os.fspath(root), events)
        yield found
        for host in reversed(hosts):
            await host.__aexit__(None, None, None)
    environment.undo()
