"""The attack cases of `tests/cases/egress.json` that need a network, and a server for them."""

import json
import pathlib
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
