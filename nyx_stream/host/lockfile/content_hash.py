"""One number for all that a plugin's code lies in: every name and every byte, in a fixed order.

BLAKE2b (RFC 7693) with 32 bytes. Left out is bytecode in `__pycache__`, which a plugin is never imported from. A link
is hashed as the text it is; one that leads out of the plugin, or to bytecode, is refused, because what it leads to can
change unseen.

What is imported later, and the manifest that was read before, are other readings of the same files. So each file's own
hash is kept as well: they are compared with that.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES

from nyx_stream.errors import PluginLoadError
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.isolation.code.modules import Digests, digest_key, find_digest
from nyx_stream.policy.manifest import FILE_NAME
from nyx_stream.regular_file import NotRegular, open_regular

_PIECE = 1 << 20
_IMPORTED = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Content:
    """What a plugin consists of.

    Attributes:
        number: the hash of all of it: `blake2b:` and 64 hexadecimal digits.
        digests: the hashes of what can be imported.
    """

    number: str
    digests: Digests


def read_content(source: PluginSource) -> Content:
    """Returns the content of a plugin. Blocks while it reads.

    Raises:
        PluginLoadError: there is something that is neither a file, a folder nor a link within the plugin; or its
            manifest is not that of the source any more.
        OSError: something cannot be read.
    """
    total = hashlib.blake2b(digest_size=32)
    digests: dict[str, str] = {}
    linked: set[str] = set()
    for kind, name, path in sorted(_members(source)):
        total.update(b"%s %d:" % (kind, len(name)) + name)
        if kind == b"l":
            target = os.fsencode(_target(source, path))
            linked.add(digest_key(os.path.realpath(path), os.path.realpath(source.root)))
            total.update(b" %d:" % len(target) + target)
        else:
            digest = _digest(source.manifest.id, path)
            total.update(digest)
            digests[digest_key(path, source.root)] = digest.hex()
    if find_digest(digests, source.root, os.path.join(source.folder, FILE_NAME)) != source.manifest.digest:
        raise PluginLoadError(source.manifest.id, f"its {FILE_NAME} changed while it was looked at: try again")
    imported = {name: own for name, own in digests.items() if name.endswith(_IMPORTED) or name in linked}
    return Content(f"blake2b:{total.hexdigest()}", imported)


def content_hash(source: PluginSource) -> str:
    """Returns the number of a plugin's content. Raises as `read_content`."""
    return read_content(source).number


def _members(source: PluginSource) -> Iterator[tuple[bytes, bytes, str]]:
    """Yields the kind (`f` or `l`), the name and the path of each file and link."""
    if source.names is None:
        yield from _below(source, source.root, "")
        return
    if source.folder != source.root:
        yield from _below(source, source.folder, "plugin")
    with os.scandir(source.root) as entries:
        own = [entry for entry in entries if entry.name.split(".")[0] in source.names]
    yield from _entries(source, own, "root")


def _below(source: PluginSource, folder: str, name: str) -> Iterator[tuple[bytes, bytes, str]]:
    with os.scandir(folder) as entries:
        yield from _entries(source, list(entries), name)


def _entries(
    source: PluginSource, entries: Iterable["os.DirEntry[str]"], above: str
) -> Iterator[tuple[bytes, bytes, str]]:
    for entry in entries:
        name = f"{above}/{entry.name}" if above else entry.name
        if entry.is_symlink():
            yield b"l", os.fsencode(name), entry.path
        elif entry.is_dir(follow_symlinks=False):
            yield from _below(source, entry.path, name)
        elif not _is_left_out(entry.path):
            yield b"f", os.fsencode(name), entry.path


def _target(source: PluginSource, path: str) -> str:
    root = os.path.realpath(source.root if source.names is None else source.folder)
    led = os.path.realpath(path)
    if os.path.commonpath((root, led)) != root:
        raise PluginLoadError(source.manifest.id, f"{path} leads out of the plugin: its content cannot be recorded")
    if _is_left_out(led.lower()):  # under a name that is imported it would be read as source; names may know no case
        raise PluginLoadError(source.manifest.id, f"{path} leads to bytecode: its content cannot be recorded")
    return os.readlink(path)


def _is_left_out(path: str) -> bool:
    return path.endswith(".pyc") and os.path.basename(os.path.dirname(path)) == "__pycache__"


def _digest(plugin: str, path: str) -> bytes:
    try:
        file = open_regular(path, links=False)
    except NotRegular as error:
        raise PluginLoadError(plugin, f"{path} is no regular file: its content cannot be recorded") from error
    with file:
        digest = hashlib.blake2b(digest_size=32)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.digest()
