"""The plugin that `bootstrap.warm_up` runs. It has methods of the usual kinds, and is imported as any plugin is."""

from collections.abc import AsyncIterator
from typing import Any

from nyx_stream.plugin import Plugin, export


class Sample(Plugin):
    """Does nothing."""

    @export
    async def call(self, number: int, text: str = "", **more: Any) -> dict[str, Any]:
        """Returns its arguments."""
        return {"number": number, "text": text, **more}

    @export
    async def items(self) -> AsyncIterator[str]:
        """Yields one item."""
        yield ""
