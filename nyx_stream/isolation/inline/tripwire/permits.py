"""What the interpreter itself does while plugin code runs: importing, and reading source lines for a traceback.

Who acts is told by the identity of code objects, never by file names: `compile` takes any file name. Knows nothing of
plugins but the folder whose code is the plugin's.
"""

import importlib._bootstrap
import importlib._bootstrap_external
import importlib.machinery
import linecache
import os
import socket
import sys
import sysconfig
import tokenize
import zipimport
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

_SUFFIXES = (*importlib.machinery.all_suffixes(), ".zip")
_METADATA = (".dist-info", ".egg-info")
# Where the classes of the modules below say they come from: the frozen ones have two names.
_MODULES = frozenset(
    {
        "_frozen_importlib",
        "_frozen_importlib_external",
        "importlib._bootstrap",
        "importlib._bootstrap_external",
        "linecache",
        "tokenize",
        "zipimport",
    }
)


def _codes(value: Any) -> Iterator[CodeType]:
    """Yields the code objects of a function, or of all functions of a class or module, with those nested in them."""
    if isinstance(value, CodeType):
        yield value
        for constant in value.co_consts:
            if isinstance(constant, CodeType):
                yield from _codes(constant)
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _codes(value.__func__)
    elif isinstance(value, FunctionType):
        yield from _codes(value.__code__)
    elif isinstance(value, ModuleType) or (isinstance(value, type) and value.__module__ in _MODULES):
        for inner in list(vars(value).values()):
            if inner is not value and not isinstance(inner, ModuleType):
                yield from _codes(inner)


def _identities(*modules: ModuleType) -> dict[int, CodeType]:
    # The values keep the code objects alive, so that an identity stays theirs.
    return {id(code): code for module in modules for code in _codes(module)}


_IMPORTING = _identities(importlib._bootstrap, importlib._bootstrap_external, zipimport)
_IMPORT = id(importlib._bootstrap._find_and_load.__code__)  # type: ignore[attr-defined]
_SHOWING = _identities(linecache, tokenize)
_PAIRING = socket.socketpair.__code__


class Roots:
    """The directories that modules are imported from, as they are when the host starts."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        named = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib") if key in paths]
        named += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
        self._libraries = _prefixes(named)
        self._imports = _prefixes(sys.path)

    def in_library(self, path: str) -> bool:
        """Whether `path`, canonical, lies in the standard library or among the installed packages."""
        return path.startswith(self._libraries) or f"{path}{os.sep}" in self._libraries

    def in_import_path(self, path: str) -> bool:
        """Whether `path`, canonical, lies below a directory that modules are imported from, or is one."""
        return path.startswith(self._imports) or self.is_root(path)

    def is_root(self, path: str) -> bool:
        """Whether `path`, canonical, is itself an entry of the import path: a directory or a zip file."""
        return f"{path}{os.sep}" in self._imports

    def is_metadata(self, path: str) -> bool:
        """Whether `path` is a file of an installed distribution's metadata."""
        folder, _ = os.path.split(path)
        return folder.endswith(_METADATA) and f"{os.path.dirname(folder)}{os.sep}" in self._imports


def may_read(path: str, frame: FrameType, roots: Roots, folder: str, *, listing: bool) -> bool:
    """Whether the interpreter or an installed library reads what the plugin may import anyway.

    Args:
        path: canonical path that is opened for reading, or listed.
        frame: the innermost frame; not one of the plugin's own.
        roots: the import path.
        folder: the plugin's folder, with a separator at its end.
        listing: whether it is listed.
    """
    if roots.in_library(path) or roots.is_metadata(path) or (roots.is_root(path) and not listing):
        return True
    reachable = roots.in_import_path(path) or path.startswith(folder)
    if not reachable:
        return False
    inner = id(frame.f_code)
    if listing:
        return inner in _IMPORTING or _lists_metadata(frame)
    if inner in _SHOWING:
        return path.endswith(".py")
    return path.endswith(_SUFFIXES) and imports(frame)


def _lists_metadata(frame: FrameType) -> bool:
    metadata = sys.modules.get("importlib.metadata")  # not imported for this: it is slow to import
    return metadata is not None and frame.f_code is metadata.FastPath.children.__code__


def imports(frame: FrameType | None) -> bool:
    """Whether an import statement is at work: import machinery without a gap, from `frame` up to its entrance."""
    while frame is not None and id(frame.f_code) in _IMPORTING:
        if id(frame.f_code) == _IMPORT:
            return True
        frame = frame.f_back
    return False


def initialises_library(frame: FrameType | None, roots: Roots) -> bool:
    """Whether an installed module's top level is being executed by an import."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and roots.in_library(os.path.realpath(frame.f_code.co_filename)):
            return imports(frame.f_back)
        frame = frame.f_back
    return False


def pairs_sockets(frame: FrameType) -> bool:
    """Whether `socket.socketpair` wraps its two ends, which are connected to nothing but each other."""
    return frame.f_back is not None and frame.f_back.f_code is _PAIRING


def starts_attributed_thread(frame: FrameType | None) -> bool:
    """Whether anyio starts one of its worker threads, which run their work in the caller's context."""
    backend = sys.modules.get("anyio._backends._asyncio")
    if backend is None:
        return False
    starter = backend.AsyncIOBackend.run_sync_in_worker_thread.__func__.__code__
    for _ in range(4):  # Thread.start, at most with a subclass's in between
        if frame is None:
            return False
        if frame.f_code is starter:
            return True
        frame = frame.f_back
    return False


def _prefixes(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple({os.path.join(os.path.realpath(path or os.curdir), "") for path in paths})
