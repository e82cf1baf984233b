"""A large value is read in turns of the loop, while more of it arrives. Knows no frames and no calls."""

import asyncio
import time
from functools import cache
from typing import Any

from pydantic import JsonValue

from nyx_stream.isolation.remote.wire.fair_scheduler import FairScheduler
from nyx_stream.isolation.remote.wire.frames import Pieces
from nyx_stream.isolation.remote.wire.incremental_json import in_steps
from nyx_stream.isolation.remote.wire.types import Decode

AT_ONCE = 30e-6
"""Seconds for which it is read at once; the last step may go beyond."""

_BIG = 256 * 1024
_KEPT = 4 * 2**20


class Reading:
    """The reading of one body. Of what has arrived a little is read each time that `grow` is called, the rest after
    `end`, in turns with whatever else the workers of the host have it do.
    """

    __slots__ = ("_body", "_steps", "_turns", "_value")

    def __init__(self, decode: Decode, returns: JsonValue, body: Pieces, turns: FairScheduler) -> None:
        self._body = body
        self._steps = in_steps(decode, returns, body)
        self._turns = turns
        self._value: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def value(self) -> Any:
        """Returns the value when the whole body has been read. Raises `ValueError` for JSON that does not fit."""
        return await self._value

    def grow(self) -> None:
        """More of the body has arrived."""
        end = time.perf_counter() + AT_ONCE
        while next(self._steps) and time.perf_counter() < end:
            pass

    def end(self) -> None:
        """All of it has arrived."""
        if len(self._body) >= _BIG:
            _keep_memory()
        self._turns.next(self._piece)

    def _piece(self) -> None:
        if self._value.done():  # its caller has gone
            return
        try:
            self.grow()
        except StopIteration as over:
            self._value.set_result(over.value)
        except Exception as error:  # the caller's
            self._value.set_exception(error)
            self._value.exception()  # retrieved: its caller may have gone
        else:
            self._turns.next(self._piece)


@cache
def _keep_memory() -> None:
    """Has the C library keep the memory of large values for the next ones, once in a process.

    Else it gives all above twice the largest block that was ever freed back to the system, and a stream of large items
    gets it anew for each of them: 250 page faults a MiB, of 2.2 µs, at once. glibc learns what is large from the blocks
    that are freed (mallopt(3), M_MMAP_THRESHOLD); none of this one is ever touched. So up to 8 MiB stay with the host,
    as they would after any result of 4 MiB. Where the C library is another one, nothing happens.
    """
    bytes(_KEPT)
