"""Where plugin code is imported from: nothing there is ever written by a plugin, whatever its policy grants."""

import os
from collections.abc import Iterable, Iterator
from typing import Literal

from nyx_core.beneath.text import NATIVE, fold, normalise

Access = Literal["read", "write", "move"]
"""`move` changes a name, and with a directory's name the place of all that lies below it."""


class ImportPaths:
    """Absolute paths, by name and by where the name leads. One per host; grows when a plugin is loaded, never shrinks.

    A plugin that runs already must not write what the next one will be. Adding a path, and asking, take as long as the
    path is deep, however many there are. Threads may ask while one adds.
    """

    __slots__ = ("_above", "_keys")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._keys: set[str] = set()
        self._above: set[str] = set()
        """The directories that the paths lie in."""
        self.protect(paths)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def protect(self, paths: Iterable[str]) -> None:
        """Adds paths. Asks the system where links lead to."""
        for given in paths:
            for path in (given, os.path.realpath(given)):
                key = _bare(path_key(path))
                self._above.update(_directories(key))
                self._keys.add(key)

    def touched_by(self, path: str, access: Access) -> bool:
        """Tells whether an operation on an absolute path would change what is imported."""
        if access == "read":
            return False
        key = _bare(path_key(path))
        if key in self._keys or (access == "move" and key in self._above):
            return True
        return any(directory in self._keys for directory in _directories(key))


def path_key(path: str) -> str:
    """Returns the text by which an absolute path is compared."""
    return fold(normalise(path), NATIVE)


def touches(own: str, key: str, access: Access) -> bool:
    """Tells whether `key` is `own` or lies in it, or, for a move, contains it."""
    return _covers(own, key) or (access == "move" and _covers(key, own))


def _covers(directory: str, key: str) -> bool:
    return key == directory or key.startswith(directory.rstrip(os.sep) + os.sep)


def _bare(key: str) -> str:
    return key.rstrip(os.sep)  # a root, too: then what lies in it begins with its key and a separator


def _directories(key: str) -> Iterator[str]:
    """Yields the keys of all directories that a bare key lies in."""
    while (cut := key.rfind(os.sep)) >= 0:
        key = key[:cut]
        yield key
