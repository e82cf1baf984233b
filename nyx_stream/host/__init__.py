"""Embedding plugins: the host, the handles it gives out, and what it tells about them."""

from nyx_stream.host.config import read_config
from nyx_stream.host.discovery import discover, find
from nyx_stream.host.handle import Handle
from nyx_stream.host.lifecycle import State
from nyx_stream.host.plugin_host import PluginHost
from nyx_stream.host.status import PluginStats, PluginStatus

__all__ = ["Handle", "PluginHost", "PluginStats", "PluginStatus", "State", "discover", "find", "read_config"]
