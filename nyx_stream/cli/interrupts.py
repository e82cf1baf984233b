"""Runs a command on an event loop so that Ctrl-C ends it at any moment.

`asyncio.run` cancels the command, but leaves three gaps. An interrupt that arrives just before the loop goes to sleep,
or in another thread, is noticed only when something else wakes the loop. A command that raises another error when it's
cancelled ends with that error. A command that is interrupted when it's nearly done ends as if nothing had happened.
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
    """Runs a coroutine like `asyncio.run`. After an interrupt it always raises KeyboardInterrupt.

    If interrupts are ignored, as in the background of a shell without job control, they stay ignored.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return asyncio.run(command)
    try:
        with asyncio.Runner() as runner:
            interrupt = _Interrupt(runner.get_loop())
            with interrupt.handled(), _wake_on_signals(runner.get_loop()):
                try:
                    return runner.run(interrupt.watch(command))
                finally:
                    if interrupt.received:
                        raise KeyboardInterrupt
    finally:
        command.close()  # an interrupt may arrive before its first step


class _Interrupt:
    """The first interrupt cancels the command. A second one raises at once, even if the command never yields."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.received = False
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    async def watch(self, command: Coroutine[Any, Any, T]) -> T:
        """Runs the command as the task that an interrupt cancels."""
        self._task = asyncio.current_task()
        return await command

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles interrupts during the `with` block."""
        previous = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        first, self.received = not self.received, True
        if not first or self._task is None or self._task.done():
            raise KeyboardInterrupt
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)


@contextmanager
def _wake_on_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Makes every signal wake the loop: Python runs handlers in the main thread, but doesn't wake it."""
    if not hasattr(loop, "add_signal_handler") or not hasattr(socket, "AF_UNIX"):  # asyncio does it on Windows
        yield
        return
    receiver, sender = socket.socketpair()
    with receiver, sender:
        receiver.setblocking(False)
        sender.setblocking(False)
        loop.add_reader(receiver, lambda: receiver.recv(4096))
        previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            loop.remove_reader(receiver)
