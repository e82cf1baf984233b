"""Whose code is running: a context variable that tasks inherit, and threads that the framework starts.

The host enters `as_plugin` before it calls a plugin. A capability enters `as_host` around its own system calls, so that
they aren't attributed to the plugin. Never hold `as_host` while code runs that may be the plugin's, such as the
asynchronous generator of a request body: that code would run as the host.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

running: ContextVar[str | None] = ContextVar("nyx_running_plugin", default=None)
"""The id of the plugin whose code runs in this context; `None` in the host's own code."""


@contextmanager
def as_plugin(plugin: str) -> Iterator[None]:
    """Attributes the code inside, and the tasks it starts, to `plugin`."""
    token = running.set(plugin)
    try:
        yield
    finally:
        running.reset(token)


@contextmanager
def as_host() -> Iterator[None]:
    """Attributes the code inside to the framework."""
    token = running.set(None)
    try:
        yield
    finally:
        running.reset(token)
