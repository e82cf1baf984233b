"""Where plugin code is imported from: nothing there is ever written by a plugin, whatever its policy grants."""

import os
from collections.abc import Iterable
from typing import Literal

from nyx_core.beneath.text import NATIVE, fold, normalise

Access = Literal["read", "write", "move"]
"""`move` changes a name, and with a directory's name the place of all that lies below it."""


class ImportPaths:
    """Absolute paths, by name and by where the name leads. One per host; grows when a plugin is loaded, never shrinks.

    A plugin that runs already must not write what the next one will be.
    """

    __slots__ = ("_keys",)

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._keys: frozenset[str] = frozenset()
        self.protect(paths)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def protect(self, paths: Iterable[str]) -> None:
        """Adds paths. Asks the system where links lead to."""
        # Replaced, not changed: threads look at it meanwhile.
        self._keys |= {path_key(path) for given in paths for path in (given, os.path.realpath(given))}

    def touched_by(self, path: str, access: Access) -> bool:
        """Tells whether an operation on an absolute path would change what is imported."""
        if access == "read":
            return False
        key = path_key(path)
        return any(touches(own, key, access) for own in self._keys)


def path_key(path: str) -> str:
    """Returns the text by which an absolute path is compared."""
    return fold(normalise(path), NATIVE)


def touches(own: str, key: str, access: Access) -> bool:
    """Tells whether `key` is `own` or lies in it, or, for a move, contains it."""
    return _covers(own, key) or (access == "move" and _covers(key, own))


def _covers(directory: str, key: str) -> bool:
    return key == directory or key.startswith(directory.rstrip(os.sep) + os.sep)
