"""The granted directories, each opened once and held. Shared by threads; knows no rule but its text."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from nyx_core.beneath import EscapesRoot, Root, open_root, status
from nyx_core.beneath.text import NATIVE, fold, normalise


class RootsClosed(Exception):
    """No operation may begin any more."""


class GrantedRoots:
    """Roots by the prefix that grants them.

    A root is opened when its prefix is first used, or by `bind`, and stays that directory whatever happens to
    the name. The descriptors close when the last operation that uses them has ended: a number that is closed
    under a running operation may be another file's a moment later.

    What is not there yet when it is bound may be made later, but only where its name led at that time: a link that
    has come into the path since then may be a plugin's doing.
    """

    __slots__ = ("_awaited", "_closed", "_lock", "_roots", "_users")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[str, Root] = {}
        self._awaited: dict[str, str] = {}
        self._users = 0
        self._closed = False

    def bind(self, prefix: str) -> None:
        """Opens a prefix now, if it can be; if not, its first use says why."""
        try:
            with self.use(prefix):
                pass
        except OSError:
            self._awaited.setdefault(prefix, os.path.realpath(prefix))

    @contextmanager
    def use(self, *prefixes: str) -> Iterator[list[Root]]:
        """The roots of `prefixes`, which stay open for the time of the `with` block.

        Raises:
            GroundsClosed: `close` was called.
            OSError: a prefix cannot be opened.
        """
        with self._lock:
            if self._closed:
                raise RootsClosed
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
            opened = self._open(prefix)
            with self._lock:
                root = self._roots.setdefault(prefix, opened)
            if root is not opened:
                opened.close()
        return root

    def _open(self, prefix: str) -> Root:
        opened = open_root(os.path.normpath(prefix))
        awaited = self._awaited.get(prefix)
        if awaited is not None:
            try:
                # Asks the descriptor, so that no name can be swapped between the two.
                status(opened, ".", partial(_same_place, awaited))
            except BaseException:
                opened.close()
                raise
        return opened

    def _close_unused(self) -> None:
        if self._closed and not self._users:
            while self._roots:
                self._roots.popitem()[1].close()


def _same_place(awaited: str, _below: str, absolute: str) -> None:
    """The judge of a root that was not there when it was granted."""
    if fold(normalise(absolute, NATIVE), NATIVE) != fold(normalise(awaited, NATIVE), NATIVE):
        raise EscapesRoot(absolute)
