"""Embedding plugins: the host, the handles that it returns, and what it reports about plugins.

Dependencies inside this package point one way: `host` and `handle` call `operations` (load, reload, restart, revoke,
policies), which act on `runtime` (one plugin's record and runs). `approvals`, `lockfile` and `observability` are below
`runtime` and import none of the layers above. An import contract in `pyproject.toml` checks that.
"""

from typing import TYPE_CHECKING, Any

from nyx_stream.capabilities.lease import LeaseStatus
from nyx_stream.host.approvals.store import ApprovalStatus
from nyx_stream.host.discovery import discover, find
from nyx_stream.host.handle import Handle
from nyx_stream.host.host import PluginHost
from nyx_stream.host.observability.call_observer import Call, Observation, Observer
from nyx_stream.host.observability.metrics import (
    Latency,
    PendingUpdate,
    PluginMetrics,
    PluginStats,
    PluginStatus,
    State,
)
from nyx_stream.policy.approval import Answer, Question

if TYPE_CHECKING:
    from nyx_stream.host.config import read_config

__all__ = [
    "Answer",
    "ApprovalStatus",
    "Call",
    "Handle",
    "Latency",
    "LeaseStatus",
    "Observation",
    "Observer",
    "PendingUpdate",
    "PluginHost",
    "PluginMetrics",
    "PluginStats",
    "PluginStatus",
    "Question",
    "State",
    "discover",
    "find",
    "read_config",
]


def __getattr__(name: str) -> Any:
    if name == "read_config":  # its pydantic models are needed for a host file only
        from nyx_stream.host.config import read_config

        return read_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
