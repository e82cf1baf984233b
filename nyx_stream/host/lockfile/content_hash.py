"""The content hash of a plugin: one BLAKE2b hash (RFC 7693, 32 bytes) of the names and bytes of all its files, sorted.

Bytecode in `__pycache__` is left out, because plugins are never imported from it. A symbolic link is hashed as its
target's path. A link that leads out of the plugin or to bytecode is refused, because its target can change unnoticed.

The manifest was read before, and modules are imported later, so the files may have changed in between. To detect that,
`Content.digests` keeps the hash of each file: the manifest is compared here, and each module when it is imported.
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

_CHUNK = 1 << 20
_IMPORTABLE_SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a plugin.

    Attributes:
        hash: the hash of all its files: `blake2b:` and 64 hexadecimal digits.
        digests: the hashes of the files that can be imported.
    """

    hash: str
    digests: Digests


def read_content(source: PluginSource) -> Content:
    """Returns the content of a plugin. Blocks while it reads the files.

    Raises:
        PluginLoadError: an entry is neither a file, nor a folder, nor a link within the plugin; or the manifest has
            changed since `source` was made.
        OSError: a file can't be read.
    """
    total = hashlib.blake2b(digest_size=32)
    digests: dict[str, str] = {}
    linked: set[str] = set()
    for kind, name, path in sorted(_members(source)):
        total.update(b"%s %d:" % (kind, len(name)) + name)
        if kind == b"l":
            target = os.fsencode(_link_target(source, path))
            linked.add(digest_key(os.path.realpath(path), os.path.realpath(source.root)))
            total.update(b" %d:" % len(target) + target)
        else:
            digest = _digest(source.manifest.id, path)
            total.update(digest)
            digests[digest_key(path, source.root)] = digest.hex()
    if find_digest(digests, source.root, os.path.join(source.folder, FILE_NAME)) != source.manifest.digest:
        raise PluginLoadError(source.manifest.id, f"its {FILE_NAME} changed while the plugin was read: try again")
    imported = {name: own for name, own in digests.items() if name.endswith(_IMPORTABLE_SUFFIXES) or name in linked}
    return Content(f"blake2b:{total.hexdigest()}", imported)


def _members(source: PluginSource) -> Iterator[tuple[bytes, bytes, str]]:
    """Yields the kind (`f` for a file, `l` for a link), the name and the path of each file and link."""
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
        elif not _is_bytecode(entry.path):
            yield b"f", os.fsencode(name), entry.path


def _link_target(source: PluginSource, path: str) -> str:
    root = os.path.realpath(source.root if source.names is None else source.folder)
    target = os.path.realpath(path)
    if os.path.commonpath((root, target)) != root:
        raise PluginLoadError(source.manifest.id, f"{path} leads out of the plugin: its content can't be recorded")
    # The import system would read it as source under the link's name. Some file systems ignore case.
    if _is_bytecode(target.lower()):
        raise PluginLoadError(source.manifest.id, f"{path} leads to bytecode: its content can't be recorded")
    return os.readlink(path)


def _is_bytecode(path: str) -> bool:
    return path.endswith(".pyc") and os.path.basename(os.path.dirname(path)) == "__pycache__"


def _digest(plugin: str, path: str) -> bytes:
    try:
        file = open_regular(path, links=False)
    except NotRegular as error:
        raise PluginLoadError(plugin, f"{path} is not a regular file: its content can't be recorded") from error
    with file:
        digest = hashlib.blake2b(digest_size=32)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
