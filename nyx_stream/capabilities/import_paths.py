"""The paths that plugin code is imported from. No policy lets a plugin write there."""

import os
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

from nyx_core.beneath.text import NATIVE, fold, normalise

Access: TypeAlias = Literal["read", "write", "move"]
"""What an operation does with a path. `move` changes a name; moving a directory also moves everything below it."""


class ImportPaths:
    """Absolute paths, by name and by where the name leads. One per host; grows with each plugin that is loaded.

    A running plugin must not write the code of the next one. The cost of adding and asking depends on the depth of a
    path, not on their number. Threads may ask while one adds.
    """

    __slots__ = ("_keys", "_parents")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._keys: set[str] = set()
        self._parents: set[str] = set()
        """All directories above the paths."""
        self.protect(paths)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def protect(self, paths: Iterable[str]) -> None:
        """Adds paths, and what they lead to if they are links."""
        for given in paths:
            for path in (given, os.path.realpath(given)):
                key = _bare_key(path)
                self._parents.update(_parent_keys(key))
                self._keys.add(key)

    def touched_by(self, path: str, access: Access) -> bool:
        """Tells whether an operation on an absolute path would change code that is imported."""
        if access == "read":
            return False
        key = _bare_key(path)
        if key in self._keys or (access == "move" and key in self._parents):
            return True
        return any(directory in self._keys for directory in _parent_keys(key))


def path_key(path: str) -> str:
    """Returns the text by which an absolute path is compared."""
    return fold(normalise(path), NATIVE)


def touches(own: str, key: str, access: Access) -> bool:
    """Tells whether `key` is `own` or below it, or, for a move, above it."""
    return _contains(own, key) or (access == "move" and _contains(key, own))


def _contains(directory: str, key: str) -> bool:
    return key == directory or key.startswith(directory.rstrip(os.sep) + os.sep)


def _bare_key(path: str) -> str:
    """Returns the key without a separator at its end: the key of a path in it begins with it and a separator."""
    return path_key(path).rstrip(os.sep)


def _parent_keys(key: str) -> Iterator[str]:
    """Yields the keys of all directories above a bare key."""
    while (cut := key.rfind(os.sep)) >= 0:
        key = key[:cut]
        yield key
