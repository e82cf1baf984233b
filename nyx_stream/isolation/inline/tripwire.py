"""The tripwire: refuses and records what plugin code does without its capabilities, at level `inline`.

Theory of operation
    CPython reports sensitive operations (opening a file, a socket, a process, ...) to audit hooks, which may refuse
    them by raising (PEP 578). A hook can't be removed, so the process gets one, when the first host with the tripwire
    starts. It needs no list of hosts or plugins: `attribution.running`, a context variable, holds the `PluginMark` of
    the plugin whose code is running, and everything that the hook needs is an attribute of that mark. While no plugin
    runs, the hook costs one lookup.

    While a plugin runs, an event of a family in `tripwire_rules` is refused, unless the plugin merely causes it. The
    interpreter itself opens files when a plugin imports a module or prints a traceback, and libraries create socket
    pairs for event loops or read their own data. `PluginMark.judge` permits these by the code objects on the stack. A
    refusal raises `TripwireDenied` at the plugin's line and writes an audit event that names that line.

    This is attribution, not containment: code in the same process can reach anything, including this variable.
"""

import _thread
import linecache
import mimetypes
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from types import FrameType
from typing import Any, Self

from nyx_stream.attribution import as_host, running
from nyx_stream.audit import AuditEvent, AuditSink
from nyx_stream.errors import TripwireDenied
from nyx_stream.isolation.inline.tripwire_rules import (
    ImportRoots,
    capability_of,
    harmless,
    imports,
    initialises_library,
    may_read,
    opens_for_reading,
    pairs_sockets,
    starts_attributed_thread,
    target_of,
)
from nyx_stream.text import escape

_ALTERNATIVES = {
    "files": "use self.files",
    "connect": "use self.http",
    "thread": "use asyncio.to_thread",
    "process": "no capability starts or changes processes",
    "native": "no capability calls native code",
    "interpreter": "no capability reaches into the interpreter",
}
_MAX_SOURCE = 120
"""Characters of a source line that are shown."""

_installed = False
"""Whether this process has the hook."""


@dataclass(eq=False, repr=False)
class PluginMark(str):  # noqa: SLOT000  # one object per loaded plugin
    """Id of a plugin; the value of `attribution.running` while its code runs. One object per load.

    `folder` has the plugin's code, `builtins` are those of its modules; `sink` gets the refusals.
    """

    plugin: InitVar[str]
    _: KW_ONLY
    armed: bool
    folder: str
    builtins: Mapping[str, Any]
    roots: ImportRoots
    sink: AuditSink | None

    def __new__(cls, plugin: str, **_attributes: object) -> Self:
        return super().__new__(cls, plugin)

    def __post_init__(self, _plugin: str) -> None:
        self.folder = os.path.join(os.path.realpath(self.folder), "")

    def owns(self, frame: FrameType) -> bool:
        """Whether `frame` runs code of the plugin."""
        return frame.f_builtins is self.builtins or frame.f_code.co_filename.startswith(self.folder)

    def judge(self, capability: str, event: str, args: Sequence[Any], frame: FrameType) -> None:
        """Raises `TripwireDenied` unless the interpreter or a library causes the event for its own purposes.

        `capability` is what the event bypasses, `frame` the innermost Python frame.
        """
        if harmless(event, args):
            return
        if not self.owns(frame):
            if opens_for_reading(event, args):
                path = args[0] if args else None
                # A relative path is refused: the event doesn't tell which directory it is relative to (dir_fd).
                if type(path) is str and os.path.isabs(path):
                    path = os.path.realpath(path)
                    if may_read(path, frame, self.roots, self.folder, listing=event != "open"):
                        return
            elif capability == "native" and initialises_library(frame, self.roots):
                return
            elif capability == "files" and imports(frame):
                # An import that wants to cache bytecode: it continues without, so it isn't recorded as an attempt.
                raise self._denial(capability, event, args, "bytecode is not cached while a plugin imports")
            elif (event == "socket.__new__" and pairs_sockets(frame)) or (
                capability == "thread" and starts_attributed_thread(frame)
            ):
                return
        raise self._refuse(capability, event, args, frame)

    def _refuse(self, capability: str, event: str, args: Sequence[Any], frame: FrameType) -> TripwireDenied:
        with as_host():
            reason = f"plugin code bypassed its capabilities: {_ALTERNATIVES[capability]}"
            denied = self._denial(capability, event, args, reason, self._location(frame))
            if self.sink is not None:
                moment, target = time.time(), denied.target
                self.sink(AuditEvent(moment, str(self), capability, event, target, False, None, reason, "tripwire"))
            return denied

    def _denial(
        self, capability: str, event: str, args: Sequence[Any], reason: str, location: str = ""
    ) -> TripwireDenied:
        target = escape(target_of(event, args))
        return TripwireDenied(
            plugin=str(self),
            capability=capability,
            action=event,
            target=f"{target} ({location})" if location else target,
            rule=None,
            reason=reason,
        )

    def _location(self, frame: FrameType | None) -> str:
        """Returns file, line number and source text of the plugin's innermost line."""
        while frame is not None and not self.owns(frame):
            frame = frame.f_back
        if frame is None:
            return "no line of the plugin is on the stack"
        name = frame.f_code.co_filename
        text = linecache.getline(name, frame.f_lineno).strip()
        return f"{name.removeprefix(self.folder)}:{frame.f_lineno}: {text[:_MAX_SOURCE]}"


def install() -> None:
    """Adds the hook to this process, unless it has it. It can't be removed, and only affects a `PluginMark`."""
    global _installed
    if not _installed:
        _installed = True
        # The table of file types is read from the system on first use, for instance by httpx for the name of a file to
        # upload. If a plugin caused that, it would be refused.
        mimetypes.init()
        sys.addaudithook(_hook)
        if sys.version_info < (3, 12):
            _audit_thread_starts()


def _audit_thread_starts() -> None:
    """Gives Python 3.11 the audit event that 3.12 has for the start of a thread."""
    start = _thread.start_new_thread

    def start_new_thread(function: Any, args: Any, *kwargs: Any) -> int:
        sys.audit("_thread.start_new_thread", function, args, *kwargs)
        return start(function, args, *kwargs)

    for module, name in ((_thread, "start_new_thread"), (_thread, "start_new"), (threading, "_start_new_thread")):
        setattr(module, name, start_new_thread)


def _hook(event: str, args: Sequence[Any], current: Any = running.get) -> None:
    plugin = current()
    if plugin is None or type(plugin) is not PluginMark or not plugin.armed:
        return
    capability = capability_of(event)
    if capability is not None:  # checked first, because `sys._getframe` is an audit event too
        plugin.judge(capability, event, args, sys._getframe(1))
