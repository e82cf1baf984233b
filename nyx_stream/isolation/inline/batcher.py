"""Work for many plugins done in one pass, where each asks for its part at about the same time. Knows no work.

A look at every task or module of the process costs as much as there are plugins: one look for each of them, when a host
with thousands closes, would cost the square.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Batcher(Generic[_Item, _Result]):
    """Calls `work` once for everything that was asked for in one turn of the event loop, after that turn."""

    def __init__(self, work: Callable[[list[_Item]], _Result]) -> None:
        self._work = work
        self._items: list[_Item] = []
        self._done: asyncio.Future[_Result] | None = None

    async def ask(self, item: _Item) -> _Result:
        """Returns what `work` returned for all of them. The work is done also if the caller is cancelled."""
        if self._done is None:
            loop = asyncio.get_running_loop()
            self._done = loop.create_future()
            loop.call_soon(self._run, self._done)
        self._items.append(item)
        return await asyncio.shield(self._done)

    def _run(self, done: "asyncio.Future[_Result]") -> None:
        items, self._items, self._done = self._items, [], None
        try:
            result = self._work(items)
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(result)
