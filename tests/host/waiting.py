"""Waiting for a state without a clock."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object]) -> None:
    """Lets the event loop turn until `condition` holds."""
    while not condition():  # noqa: ASYNC110  # what is waited for is another object's state, which has no event
        await asyncio.sleep(0)
