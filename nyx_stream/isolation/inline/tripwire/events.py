"""Which audit events mean that a plugin goes round its capabilities, and what to call them.

A family covers every event of its module, so that an event which a newer Python adds is refused until someone looks at
it. Source: the table of audit events, https://docs.python.org/3/library/audit_events.html. Pure.
"""

import os
from collections.abc import Sequence

FAMILIES = {
    "_posixsubprocess": "process",
    "_thread": "thread",
    "_winapi": "process",
    "ctypes": "native",
    "fcntl": "files",
    "ftplib": "connect",
    "gc": "interpreter",
    "glob": "files",
    "http": "connect",
    "imaplib": "connect",
    "mmap": "files",
    "msvcrt": "files",
    "nntplib": "connect",
    "os": "files",
    "pathlib": "files",
    "poplib": "connect",
    "pty": "process",
    "resource": "process",
    "shutil": "files",
    "signal": "process",
    "smtplib": "connect",
    "socket": "connect",
    "sqlite3": "files",
    "subprocess": "process",
    "syslog": "process",
    "telnetlib": "connect",
    "tempfile": "files",
    "urllib": "connect",
    "webbrowser": "process",
    "winreg": "files",
}
"""Capability that an event goes round, by the part of its name before the first dot."""

EXACT = {
    "open": "files",
    "os.exec": "process",
    "os.fork": "process",
    "os.forkpty": "process",
    "os.kill": "process",
    "os.killpg": "process",
    "os.posix_spawn": "process",
    "os.putenv": "process",
    "os.spawn": "process",
    "os.startfile": "process",
    "os.startfile/2": "process",
    "os.system": "process",
    "os.unsetenv": "process",
    "setopencodehook": "interpreter",
    "sys._current_exceptions": "interpreter",
    "sys._current_frames": "interpreter",
    "sys.addaudithook": "interpreter",
    "sys.remote_exec": "interpreter",
    "sys.setprofile": "interpreter",
    "sys.settrace": "interpreter",
}

READING = frozenset({"open", "os.listdir", "os.scandir"})
"""Events that only look, if `opens_for_reading`."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def capability_of(event: str) -> str | None:
    """Returns what `event` goes round, or `None` for an event that any code may cause."""
    return EXACT.get(event) or FAMILIES.get(event.partition(".")[0])


def opens_for_reading(event: str, args: Sequence[object]) -> bool:
    """Whether the event only reads or lists."""
    if event != "open":
        return event in READING
    flags = args[2] if len(args) > 2 else None
    return isinstance(flags, int) and not flags & _WRITES


def harmless(event: str, args: Sequence[object]) -> bool:
    """Whether this one event of a refused family touches nothing outside the process."""
    first = args[0] if args else None
    if event == "open" and type(first) is str and first[:1] == "<" and first[-1:] == ">":
        # The compiler looks for the source line of a SyntaxError, even of "<string>": fopen(3), without flags.
        return type(args[1]) is str and args[2] == 0
    # A number is a descriptor that is open already: nothing is opened.
    return type(first) is int and (event == "open" or (event == "mmap.__new__" and first == -1))


def target_of(event: str, args: Sequence[object]) -> str:
    """Returns what the event is about, as text; never runs code of the arguments' classes."""
    if event == "socket.__new__":
        return "a new socket"
    if event.startswith("socket.") and len(args) > 1 and type(args[0]) not in (str, bytes):
        args = args[1:]  # the socket object itself comes first
    if event == "subprocess.Popen" and len(args) > 1:
        return _text(args[1])
    return _text(args[0]) if args else ""


def _text(value: object) -> str:
    # Exact classes only: a subclass may have a __str__ or __fspath__ of the plugin's.
    if type(value) is str:
        return value
    if type(value) is bytes:
        return os.fsdecode(value)
    if type(value) is tuple or type(value) is list:
        return " ".join(_text(part) for part in value[:8])
    if value is None or type(value) in (int, float, bool):
        return str(value)
    return f"<{type(value).__name__}>"
