"""Waiting for a state without a clock."""

import asyncio
import time
from collections.abc import Callable

_MOMENT = 0.0002
"""Seconds. A loop that only turns keeps its processor from workers, and the interpreter's lock from other threads."""


async def until(condition: Callable[[], object]) -> None:
    """Lets the event loop turn until `condition` holds; looks at it in every turn, so that no state is missed."""
    while not condition():
        await turn()


async def turn() -> None:
    """Lets the event loop turn once, and whoever else wants the processor have it for a moment."""
    time.sleep(_MOMENT)  # noqa: ASYNC251  # it is to hold the loop, as little as it is
    await asyncio.sleep(0)
