"""The attack cases of `tests/cases/egress.json` that need a network, and a server for them."""

import json
import pathlib
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest

from nyx_stream.policy import SandboxPolicy
from tests.capabilities.http.conftest import Authority
from tests.capabilities.http.loopback import NamedNetwork, Plugin, Server

_NAMES = ("api.example.com", "*.cdn.example.com", "evil.example.net")
_TABLE = pathlib.Path(__file__).parents[2] / "cases" / "egress.json"


def cases(stage: str) -> list[Any]:
    """The cases of one stage, as parameters named by their id."""
    return [
        pytest.param(case, id=f"{case['id']} {case['reason'][:40]}")
        for case in json.loads(_TABLE.read_text())["cases"]
        if case["stage"] == stage
    ]


def tls_server(authority: Authority, answer: Any) -> Server:
    """A server with a certificate for every name of the cases."""
    return Server(answer, context=authority.server(*_NAMES))


def plugin(case: dict[str, Any], authority: Authority, server: Server, kind: Any, **network: Any) -> Plugin:
    """A plugin under the rules of a case, whose every dial ends at `server`."""
    policy = SandboxPolicy.locked_down().allow_request(*case["allow"])
    return Plugin(policy, NamedNetwork(server.port, trust=authority.client(), **network), kind)


def reachable(start: Any) -> Iterator[Any]:
    """Yields every value that attributes and items lead to, but for dunders, modules and classes."""
    seen: set[int] = set()
    queue: list[Any] = [start]
    keep: list[Any] = []
    while queue:
        value = queue.pop()
        if id(value) in seen or isinstance(value, str | bytes | int | float | type | ModuleType):
            continue
        seen.add(id(value))
        keep.append(value)  # so that no other value gets its id
        yield value
        if isinstance(value, dict | list | tuple | set):
            queue.extend(value.values() if isinstance(value, dict) else value)
        for name in dir(value):
            if not name.startswith("__"):
                with suppress(Exception):  # a property that needs another state
                    queue.append(getattr(value, name))
