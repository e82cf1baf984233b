"""The plugin that workers rehearse with: methods of the usual kinds. Imported as a plugin's module is, by its path."""

from collections.abc import AsyncIterator
from typing import Any

from nyx_stream.plugin import Plugin, export


class Sample(Plugin):
    """Does nothing."""

    @export
    async def call(self, number: int, text: str = "", **more: Any) -> dict[str, Any]:
        """Returns what it was given."""
        return {"number": number, "text": text, **more}

    @export
    async def items(self) -> AsyncIterator[str]:
        """Makes one item."""
        yield ""
