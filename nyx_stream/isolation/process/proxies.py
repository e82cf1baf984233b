"""What a sealed plugin sees of its capabilities: the worker's proxies by name. See `line`."""

from collections.abc import Mapping

from nyx_stream.isolation.process.line import ProxyFactory

PROXIES: Mapping[str, ProxyFactory] = {}
