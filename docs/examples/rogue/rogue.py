"""A plugin that tries each thing a plugin should not. Its report must say `refused` on every line."""

from collections.abc import AsyncIterator

import by_capability
import by_the_back
from attempt import Attempt, attempt

from nyx_stream import Plugin, export


class Rogue(Plugin):
    """Tries, and reports."""

    @export
    async def attack(self) -> AsyncIterator[Attempt]:
        """Yields what was tried and who refused it, one attempt at a time."""
        for what, act in by_capability.http_attempts(self):
            yield await attempt(f"http: {what}", act)
        for what, act in by_capability.file_attempts(self):
            yield await attempt(f"files: {what}", act)
        for what, act in by_the_back.attempts():
            yield await attempt(f"round: {what}", act)
