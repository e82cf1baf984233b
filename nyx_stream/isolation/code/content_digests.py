"""The files of a plugin as its host hashed them: what is imported is compared with that, whenever it is imported.

Knows neither who accepted them nor where that is recorded.
"""

import hashlib
import os
from collections.abc import Mapping

Digests = Mapping[str, str]
"""The `digest_of` of files, by their path below the root of the plugin's modules, with `/`."""


def digest_of(data: bytes) -> str:
    """Returns the BLAKE2b hash of a file's bytes: 32 bytes, as hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def place_of(path: str, root: str) -> str:
    """Returns the path below the root by which a file has its digest."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def find_digest(digests: Digests, root: str, path: str) -> str | None:
    """Returns the digest of the file at an absolute path; behind links, that of the file that they lead to.

    A link that is turned to another file of the plugin meanwhile leads to that file's digest.
    """
    for top, name in ((root, path), (os.path.realpath(root), os.path.realpath(path))):
        found = digests.get(place_of(name, top))
        if found is not None:
            return found
    return None


class AcceptedFiles:
    """The files below one root."""

    def __init__(self, root: str, digests: Digests) -> None:
        self._root = root
        self._digests = digests

    def must_have(self, module: str, path: str, data: bytes) -> None:
        """Compares what is about to be run with what was hashed.

        Raises:
            ImportError: it is something else.
        """
        known = find_digest(self._digests, self._root, path)
        if known is None or known != digest_of(data):
            what = "was not there" if known is None else "had another content"
            raise ImportError(f"{path} {what} when the host looked at the plugin", name=module, path=path)
