"""Which audit events the tripwire refuses, and which of these the interpreter and libraries cause themselves.

A family covers every event of its module, so an event that a newer Python adds is refused until it has been reviewed.
Source: the table of audit events, https://docs.python.org/3/library/audit_events.html. Permits depend on the identity
of code objects on the stack, never on file names: `compile` accepts any file name.
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
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

_EVENTS = {
    "connect": "ftplib http imaplib nntplib poplib smtplib socket telnetlib urllib",
    "files": "fcntl glob mmap msvcrt open os pathlib shutil sqlite3 tempfile winreg",
    "interpreter": """
        gc setopencodehook sys._current_exceptions sys._current_frames sys.addaudithook sys.remote_exec sys.setprofile
        sys.settrace
    """,
    "native": "ctypes",
    "process": """
        _posixsubprocess _winapi pty resource signal subprocess syslog webbrowser os.exec os.fork os.forkpty os.kill
        os.killpg os.posix_spawn os.putenv os.spawn os.startfile os.startfile/2 os.system os.unsetenv
    """,
    "thread": "_thread",
}
"""The events that bypass each capability: a family by the part of its names before the first dot, or one event."""
_CAPABILITIES = {event: capability for capability, events in _EVENTS.items() for event in events.split()}

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def capability_of(event: str) -> str | None:
    """Returns what `event` bypasses, or `None` for an event that any code may cause."""
    return _CAPABILITIES.get(event) or _CAPABILITIES.get(event.partition(".")[0])


def opens_for_reading(event: str, args: Sequence[object]) -> bool:
    """Whether the event only reads or lists."""
    if event != "open":
        return event in ("os.listdir", "os.scandir")
    flags = args[2] if len(args) > 2 else None
    return isinstance(flags, int) and not flags & _WRITES


def harmless(event: str, args: Sequence[object]) -> bool:
    """Whether this one event of a refused family touches nothing outside the process."""
    first = args[0] if args else None
    if event == "open" and type(first) is str and first[:1] == "<" and first[-1:] == ">":
        # The compiler looks for the source line of a SyntaxError, even in "<string>": fopen(3), without flags.
        return type(args[1]) is str and args[2] == 0
    # A number is a descriptor that is already open.
    return type(first) is int and (event == "open" or (event == "mmap.__new__" and first == -1))


def target_of(event: str, args: Sequence[object]) -> str:
    """Returns the target of the event as text, without running code of the arguments' classes."""
    if event == "socket.__new__":
        return "a new socket"
    if event.startswith("socket.") and len(args) > 1 and type(args[0]) not in (str, bytes):
        args = args[1:]  # the socket object itself comes first
    if event == "subprocess.Popen" and len(args) > 1:
        return _text(args[1])
    return _text(args[0]) if args else ""


def _text(value: object) -> str:
    # Exact classes only: a subclass may define `__str__` or `__fspath__`, which would be the plugin's code.
    if type(value) is str:
        return value
    if type(value) is bytes:
        return os.fsdecode(value)
    if type(value) is tuple or type(value) is list:
        return " ".join(_text(part) for part in value[:8])
    if value is None or type(value) in (int, float, bool):
        return str(value)
    return f"<{type(value).__name__}>"


_SUFFIXES = (*importlib.machinery.all_suffixes(), ".zip")
_METADATA = (".dist-info", ".egg-info")
# `__module__` of the classes in the modules below; the frozen ones have two names.
_MODULES = frozenset(
    {"_frozen_importlib", "_frozen_importlib_external", "importlib._bootstrap", "importlib._bootstrap_external"}
    | {"linecache", "tokenize", "zipimport"}
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
    # The values keep the code objects alive, so that no other object gets the same identity.
    return {id(code): code for module in modules for code in _codes(module)}


_IMPORTING = _identities(importlib._bootstrap, importlib._bootstrap_external, zipimport)
_IMPORT = id(importlib._bootstrap._find_and_load.__code__)  # type: ignore[attr-defined]
_SHOWING = _identities(linecache, tokenize)
_PAIRING = socket.socketpair.__code__


class ImportRoots:
    """The directories that modules are imported from, as they were when the host started."""

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        named = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib") if key in paths]
        named += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
        self._libraries = _prefixes(named)
        self._imports = _prefixes(sys.path)

    def in_library(self, path: str) -> bool:
        """Whether `path`, canonical, is in the standard library or in an installed package."""
        return path.startswith(self._libraries) or f"{path}{os.sep}" in self._libraries

    def in_import_path(self, path: str) -> bool:
        """Whether `path`, canonical, is a directory that modules are imported from, or below one."""
        return path.startswith(self._imports) or self.is_root(path)

    def is_root(self, path: str) -> bool:
        """Whether `path`, canonical, is an entry of the import path: a directory or a zip file."""
        return f"{path}{os.sep}" in self._imports

    def is_metadata(self, path: str) -> bool:
        """Whether `path` is a file of an installed distribution's metadata."""
        folder, _ = os.path.split(path)
        return folder.endswith(_METADATA) and f"{os.path.dirname(folder)}{os.sep}" in self._imports


def may_read(path: str, frame: FrameType, roots: ImportRoots, folder: str, *, listing: bool) -> bool:
    """Whether the interpreter or an installed library reads something that the plugin may import anyway.

    Args:
        path: canonical path that is opened for reading, or listed.
        frame: the innermost frame; not one of the plugin's own.
        roots: the import path.
        folder: the plugin's folder, with a separator at its end.
        listing: whether it is listed.
    """
    if roots.in_library(path) or roots.is_metadata(path) or (roots.is_root(path) and not listing):
        return True
    if not (roots.in_import_path(path) or path.startswith(folder)):
        return False
    inner = id(frame.f_code)
    if listing:
        return inner in _IMPORTING or _lists_metadata(frame)
    if inner in _SHOWING:
        return path.endswith(".py")
    return path.endswith(_SUFFIXES) and imports(frame)


def _lists_metadata(frame: FrameType) -> bool:
    metadata = sys.modules.get("importlib.metadata")  # if it isn't imported yet, it isn't at work
    return metadata is not None and frame.f_code is metadata.FastPath.children.__code__


def imports(frame: FrameType | None) -> bool:
    """Whether an import statement is running: from `frame` up to its entry point, all frames are import machinery."""
    while frame is not None and id(frame.f_code) in _IMPORTING:
        if id(frame.f_code) == _IMPORT:
            return True
        frame = frame.f_back
    return False


def initialises_library(frame: FrameType | None, roots: ImportRoots) -> bool:
    """Whether an installed module's top level is being executed by an import."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and roots.in_library(os.path.realpath(frame.f_code.co_filename)):
            return imports(frame.f_back)
        frame = frame.f_back
    return False


def pairs_sockets(frame: FrameType) -> bool:
    """Whether `socket.socketpair` is wrapping its two ends, which are only connected to each other."""
    return frame.f_back is not None and frame.f_back.f_code is _PAIRING


def starts_attributed_thread(frame: FrameType | None) -> bool:
    """Whether anyio is starting one of its worker threads, which run their work in the caller's context."""
    backend = sys.modules.get("anyio._backends._asyncio")
    if backend is None:
        return False
    starter = backend.AsyncIOBackend.run_sync_in_worker_thread.__func__.__code__
    for _ in range(4):  # `Thread.start`, with at most a subclass's in between
        if frame is None:
            return False
        if frame.f_code is starter:
            return True
        frame = frame.f_back
    return False


def _prefixes(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple({os.path.join(os.path.realpath(path or os.curdir), "") for path in paths})
