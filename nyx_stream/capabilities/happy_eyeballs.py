"""Which of several addresses answers first: a staggered race (RFC 8305) with a bounded number of attempts.

Knows nothing of names, policies or HTTP.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain, zip_longest

ATTEMPTS = 8
"""Addresses tried for one connection, however many the look-up gave."""

STAGGER = 0.25
"""Seconds one attempt has for itself before the next begins (RFC 8305, section 5)."""

Dial = Callable[[str, int], Awaitable[socket.socket]]


async def first_connected(dial: Dial, addresses: Sequence[str], port: int) -> tuple[socket.socket, str]:
    """The first socket that connects, and its address. Raises the last OSError if none does.

    Every other attempt is cancelled and its socket closed.
    """
    chosen = alternate(addresses)[:ATTEMPTS]
    if len(chosen) == 1:
        return await dial(chosen[0], port), chosen[0]
    running: dict[asyncio.Task[socket.socket], str] = {}
    winner: asyncio.Task[socket.socket] | None = None
    failure: OSError = OSError("no address to connect to")
    waiting = list(reversed(chosen))
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop()
                running[asyncio.ensure_future(_attempt(dial, address, port))] = address
            done, _ = await asyncio.wait(
                running, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    winner = task
                    return task.result(), running[task]
                del running[task]
                if not isinstance(error, OSError):
                    raise error
                failure = error
        raise failure
    finally:
        await _drop(task for task in running if task is not winner)


def alternate(addresses: Sequence[str]) -> list[str]:
    """Distinct addresses, families taking turns, beginning with the family of the first (RFC 8305, section 4)."""
    distinct = list(dict.fromkeys(addresses))
    if not distinct:
        return []
    six = ":" in distinct[0]
    first = [address for address in distinct if (":" in address) == six]
    other = [address for address in distinct if (":" in address) != six]
    turns = chain.from_iterable(zip_longest(first, other))
    return [address for address in turns if address is not None]


async def _attempt(dial: Dial, address: str, port: int) -> socket.socket:
    return await dial(address, port)


async def _drop(tasks: Iterable[asyncio.Task[socket.socket]]) -> None:
    losers = list(tasks)
    for task in losers:
        task.cancel()
    for outcome in await asyncio.gather(*losers, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()
