"""The granted directories of one plugin, each opened once and held. Threads share them."""

import os
import threading
from functools import partial

from nyx_core.beneath import EscapesRoot, Root, open_root, status
from nyx_core.beneath.text import NATIVE, fold, normalise


class RootsClosed(Exception):
    """`GrantedRoots.close` was called, so no operation can begin."""


class GrantedRoots:
    """Opened directories, by the prefix of the rule that grants them.

    A grant is a directory, not a name: its descriptor is opened by `bind`, or on first use, and is kept when the name
    is moved or replaced. If a directory doesn't exist when its prefix is bound, it can be created later, but only at
    the path that the name led to at that time, because a link that appears in the path later could be the plugin's.

    Use it in a `with` block around each operation. `close` closes the descriptors when the last block has ended:
    earlier, a running operation could find another file under the same descriptor number.
    """

    __slots__ = ("_closed", "_expected", "_lock", "_roots", "_users")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._roots: dict[str, Root] = {}
        self._expected: dict[str, str] = {}
        """Where prefixes that didn't exist when they were bound led to."""
        self._users = 0
        self._closed = False

    def __enter__(self) -> None:
        """Keeps the descriptors open. Raises `RootsClosed` after `close`."""
        with self._lock:
            if self._closed:
                raise RootsClosed
            self._users += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._users -= 1
            if self._closed and not self._users:
                self._close_all()

    def bind(self, prefix: str) -> None:
        """Opens a prefix now if possible. If it can't be opened, its first use raises the error."""
        try:
            with self:
                self.root(prefix)
        except OSError:
            self._expected.setdefault(prefix, os.path.realpath(prefix))

    def root(self, prefix: str) -> Root:
        """Returns the root of a prefix; to be used within the `with` block. Raises OSError if it can't be opened."""
        root = self._roots.get(prefix)
        if root is None:
            opened = self._open(prefix)
            with self._lock:
                root = self._roots.setdefault(prefix, opened)
            if root is not opened:
                opened.close()
        return root

    def close(self) -> None:
        """Refuses further operations. The descriptors close as soon as no operation uses them."""
        with self._lock:
            self._closed = True
            if not self._users:
                self._close_all()

    def _open(self, prefix: str) -> Root:
        opened = open_root(os.path.normpath(prefix))
        expected = self._expected.get(prefix)
        if expected is not None:
            try:
                # Asks for the path of the descriptor, so that the name can't be swapped between the two steps.
                status(opened, ".", partial(_refuse_other_path, expected))
            except BaseException:
                opened.close()
                raise
        return opened

    def _close_all(self) -> None:
        while self._roots:
            self._roots.popitem()[1].close()


def _refuse_other_path(expected: str, _below: str, absolute: str) -> None:
    """The judge of a root that didn't exist when it was granted."""
    if fold(normalise(absolute, NATIVE), NATIVE) != fold(normalise(expected, NATIVE), NATIVE):
        raise EscapesRoot(absolute)
