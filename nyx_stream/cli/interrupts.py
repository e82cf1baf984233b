"""Running a command on an event loop so that an interrupt from the keyboard ends it, whenever it comes.

`asyncio.run` cancels the command, and leaves three gaps. An interrupt that comes just before the loop goes to sleep, or
in another thread, is noticed when something else wakes the loop. A command that makes another error of its cancellation
ends with that error. And one that is interrupted when it is nearly done ends as if nothing had happened.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def run_async(command: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as `asyncio.run` does. Raises KeyboardInterrupt after an interrupt, whatever came of it.

    Where interrupts are ignored, as in the background of a shell without job control, they stay ignored.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return asyncio.run(command)
    try:
        with asyncio.Runner() as runner:
            interrupt = _Interrupt(runner.get_loop())
            with interrupt.caught(), _woken(runner.get_loop()):
                try:
                    return runner.run(interrupt.watch(command))
                finally:
                    if interrupt.came:
                        raise KeyboardInterrupt
    finally:
        command.close()  # an interrupt may come before its first step


class _Interrupt:
    """The first cancels the command, a second ends it where it stands: a plugin that never yields cannot keep it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.came = False
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    async def watch(self, command: Coroutine[Any, Any, T]) -> T:
        """Runs the command as what an interrupt cancels."""
        self._task = asyncio.current_task()
        return await command

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Takes interrupts for the time of the `with` block."""
        previous = signal.signal(signal.SIGINT, self._take)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        first, self.came = not self.came, True
        if not first or self._task is None or self._task.done():
            raise KeyboardInterrupt
        self._task.cancel()
        self._loop.call_soon_threadsafe(_nothing)


@contextmanager
def _woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Has every signal wake the loop: Python runs a handler when the main thread runs, and does not wake that."""
    if not hasattr(loop, "add_signal_handler") or not hasattr(socket, "AF_UNIX"):  # Windows: asyncio sees to it
        yield
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        loop.add_reader(ours, lambda: ours.recv(4096))
        previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            loop.remove_reader(ours)


def _nothing() -> None:
    return
