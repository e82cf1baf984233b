"""Whose code is running: a context variable that follows tasks, and the threads that the framework starts.

The host enters `as_plugin` before it calls into a plugin; a capability enters `as_host` around its own system calls, so
that they are not taken for the plugin's. Never hold `as_host` over code that may be the plugin's, such as the
asynchronous generator of a request body: it would run as the host.

This module imports nothing of Nyx.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

running: ContextVar[str | None] = ContextVar("nyx_running_plugin", default=None)
"""Id of the plugin whose code runs in this context; `None` in the host's own code."""


@contextmanager
def as_plugin(plugin: str) -> Iterator[None]:
    """Marks what runs inside, and the tasks it starts, as code of `plugin`."""
    token = running.set(plugin)
    try:
        yield
    finally:
        running.reset(token)


@contextmanager
def as_host() -> Iterator[None]:
    """Marks what runs inside as the framework's own code."""
    token = running.set(None)
    try:
        yield
    finally:
        running.reset(token)
