"""The event loop's default executor, made to carry the plugin's attribution into its threads.

`asyncio.to_thread` copies the context; `loop.run_in_executor` does not, and whatever a plugin ran through it would
count as the host's. Work of the host is passed on untouched.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from nyx_stream.attribution import as_host, running

_T = TypeVar("_T")


class AttributedExecutor(ThreadPoolExecutor):
    """A thread pool whose work for a plugin runs in the plugin's context."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        return _submit(super().submit, fn, *args, **kwargs)


def attribute_default_executor(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the default executor of `loop` carry attribution, whether it exists yet or not. Can be called again."""
    present = getattr(loop, "_default_executor", None)  # asyncio has no public way to ask; other loops may not tell
    if present is None:
        loop.set_default_executor(AttributedExecutor(thread_name_prefix="asyncio"))
    elif not isinstance(present, AttributedExecutor) and "submit" not in vars(present):
        # Others may hold on to the present one, so it is kept; only this instance changes.
        submit = present.submit
        present.submit = lambda fn, /, *args, **kwargs: _submit(submit, fn, *args, **kwargs)


def _submit(submit: Callable[..., Future[_T]], fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
    if running.get() is None:
        return submit(fn, *args, **kwargs)
    context = copy_context()
    with as_host():  # a thread that the pool starts now is the framework's
        return submit(context.run, fn, *args, **kwargs)
