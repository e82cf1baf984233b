"""The granted directories, each opened once and held. Shared by threads; knows no rule but its text."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nyx_core.beneath import Root, open_root


class GroundsClosed(Exception):
    """No operation may begin any more."""


class Grounds:
    """Roots by the prefix that grants them.

    A root is opened when its prefix is first used, or by `bind`, and stays that directory whatever happens to
    the name. The descriptors close when the last operation that uses them has ended: a number that is closed
    under a running operation may be another file's a moment later.
    """

    __slots__ = ("_closed", "_lock", "_roots", "_users")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[str, Root] = {}
        self._users = 0
        self._closed = False

    def bind(self, prefix: str) -> None:
        """Opens a prefix now, if it can be; if not, its first use says why."""
        with suppress(OSError), self.use(prefix):
            pass

    @contextmanager
    def use(self, *prefixes: str) -> Iterator[list[Root]]:
        """The roots of `prefixes`, which stay open for the time of the `with` block.

        Raises:
            GroundsClosed: `close` was called.
            OSError: a prefix cannot be opened.
        """
        with self._lock:
            if self._closed:
                raise GroundsClosed
            self._users += 1
        try:
            yield [self._root(prefix) for prefix in prefixes]
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def close(self) -> None:
        """Lets no further operation begin; the roots close with the last one that runs."""
        with self._lock:
            self._closed = True
            self._close_unused()

    def _root(self, prefix: str) -> Root:
        root = self._roots.get(prefix)
        if root is None:
            opened = open_root(os.path.normpath(prefix))
            with self._lock:
                root = self._roots.setdefault(prefix, opened)
            if root is not opened:
                opened.close()
        return root

    def _close_unused(self) -> None:
        if self._closed and not self._users:
            while self._roots:
                self._roots.popitem()[1].close()
