"""Embedding plugins: the host, the handles it gives out, and what it tells about them."""

from typing import TYPE_CHECKING, Any

from nyx_stream.capabilities.lease import LeaseStatus
from nyx_stream.host.approvals.store import ApprovalStatus
from nyx_stream.host.discovery import discover, find
from nyx_stream.host.handle import Handle
from nyx_stream.host.host import PluginHost
from nyx_stream.host.observability.call_observer import Call, Observation, Observer
from nyx_stream.host.observability.metrics import Latency, PluginMetrics
from nyx_stream.host.observability.status import PluginStats, PluginStatus, Waiting
from nyx_stream.host.runtime.lifecycle import State
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
    "PluginHost",
    "PluginMetrics",
    "PluginStats",
    "PluginStatus",
    "Question",
    "State",
    "Waiting",
    "discover",
    "find",
    "read_config",
]


def __getattr__(name: str) -> Any:
    if name == "read_config":  # a host without a host file does without its pydantic models
        from nyx_stream.host.config import read_config

        return read_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
