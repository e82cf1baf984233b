"""A plugin that tries what a plugin must not do. Every line of its report must say `refused`."""

from collections.abc import AsyncIterator

import bypasses
import capability_attempts
from attempt import Attempt, attempt

from nyx_stream import Plugin, export


class Rogue(Plugin):
    """Tries every attempt and reports how it ended."""

    @export
    async def attack(self) -> AsyncIterator[Attempt]:
        """Yields one result for each attempt."""
        for what, action in capability_attempts.http_attempts(self):
            yield await attempt(f"http: {what}", action)
        for what, action in capability_attempts.file_attempts(self):
            yield await attempt(f"files: {what}", action)
        for what, action in bypasses.attempts():
            yield await attempt(f"bypass: {what}", action)
