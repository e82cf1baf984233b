"""Which capabilities a worker can ask for: the host's handlers by name. See `broker`."""

from collections.abc import Mapping

from nyx_stream.isolation.process.broker import HandlerFactory

HANDLERS: Mapping[str, HandlerFactory] = {}
