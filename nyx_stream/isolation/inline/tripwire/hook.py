"""The tripwire: refuses and records what plugin code does past its capabilities, at level `inline`.

One audit hook for the process, for hooks cannot be removed (PEP 578). It knows whose code runs by
`attribution.running`: the value there is a `PluginMark`, and everything that the hook needs hangs on it. So there is
no list of hosts, and where no watched plugin runs, the hook is one look-up.

Attribution, not containment: code in the same process can reach anything, this variable too.
"""

import _thread
import linecache
import mimetypes
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Self

from nyx_stream.attribution import as_host, running
from nyx_stream.audit import AuditEvent, AuditSink
from nyx_stream.errors import TripwireDenied
from nyx_stream.isolation.inline.tripwire.events import capability_of, harmless, opens_for_reading, target_of
from nyx_stream.isolation.inline.tripwire.permits import (
    Roots,
    imports,
    initialises_library,
    may_read,
    pairs_sockets,
    starts_attributed_thread,
)
from nyx_stream.text import escape

_INSTEAD = {
    "files": "use self.files",
    "connect": "use self.http",
    "thread": "use asyncio.to_thread",
    "process": "no capability starts or changes processes",
    "native": "no capability calls native code",
    "interpreter": "no capability reaches into the interpreter",
}
_LINE = 120
"""Characters of a source line that are shown."""

# Whether this process has the hook: a fact of the process, like the hook itself.
_hooked = False


class PluginMark(str):  # noqa: SLOT000  # one object per loaded plugin
    """Id of a plugin; the value of `attribution.running` while its code runs. One object per load."""

    armed: bool
    folder: str
    names: Mapping[str, Any]
    roots: Roots
    sink: AuditSink | None

    def __new__(
        cls,
        plugin: str,
        *,
        armed: bool,
        folder: str,
        names: Mapping[str, Any],
        roots: Roots,
        sink: AuditSink | None,
    ) -> Self:
        """`folder` is the plugin's code, `names` the builtins of its modules; `sink` gets the refusals."""
        watch = super().__new__(cls, plugin)
        watch.armed = armed
        watch.folder = os.path.join(os.path.realpath(folder), "")
        watch.names = names
        watch.roots = roots
        watch.sink = sink
        return watch

    def owns(self, frame: FrameType) -> bool:
        """Whether `frame` runs code of the plugin."""
        return frame.f_builtins is self.names or frame.f_code.co_filename.startswith(self.folder)

    def judge(self, capability: str, event: str, args: Sequence[Any], frame: FrameType) -> None:
        """Raises `TripwireDenied` unless the event is the interpreter's or a library's own business.

        Args:
            capability: what the event goes round.
            event: name of the audit event.
            args: what came with it.
            frame: the innermost Python frame.
        """
        if harmless(event, args):
            return
        if not self.owns(frame):
            if opens_for_reading(event, args):
                path = args[0] if args else None
                # Relative paths are refused: which directory they are below, the event does not tell (dir_fd).
                if type(path) is str and os.path.isabs(path) and self._may_read(event, path, frame):
                    return
            elif capability == "native" and initialises_library(frame, self.roots):
                return
            elif capability == "files" and imports(frame):
                # An import that wants to cache bytecode: it goes on without, and nobody is to blame.
                raise self._denial(capability, event, args, "bytecode is not cached while a plugin imports")
            elif (event == "socket.__new__" and pairs_sockets(frame)) or (
                capability == "thread" and starts_attributed_thread(frame)
            ):
                return
        raise self._refuse(capability, event, args, frame)

    def _may_read(self, event: str, path: str, frame: FrameType) -> bool:
        return may_read(os.path.realpath(path), frame, self.roots, self.folder, listing=event != "open")

    def _refuse(self, capability: str, event: str, args: Sequence[Any], frame: FrameType) -> TripwireDenied:
        with as_host():
            reason = f"plugin code went round its capabilities: {_INSTEAD[capability]}"
            denied = self._denial(capability, event, args, reason, self._place(frame))
            if self.sink is not None:
                self.sink(
                    AuditEvent(
                        time.time(), str(self), capability, event, denied.target, False, None, reason, "tripwire"
                    )
                )
            return denied

    def _denial(self, capability: str, event: str, args: Sequence[Any], reason: str, place: str = "") -> TripwireDenied:
        target = escape(target_of(event, args))
        return TripwireDenied(
            plugin=str(self),
            capability=capability,
            action=event,
            target=f"{target} ({place})" if place else target,
            rule=None,
            reason=reason,
        )

    def _place(self, frame: FrameType | None) -> str:
        """Returns file, line and source text of the plugin's innermost line."""
        while frame is not None and not self.owns(frame):
            frame = frame.f_back
        if frame is None:
            return "no line of the plugin is on the stack"
        name = frame.f_code.co_filename
        text = linecache.getline(name, frame.f_lineno).strip()
        return f"{name.removeprefix(self.folder)}:{frame.f_lineno}: {text[:_LINE]}"


def install() -> None:
    """Adds the hook to this process, once. It stays for good and does nothing where no `PluginMark` runs."""
    global _hooked
    if not _hooked:
        _hooked = True
        # The table of file types is read from the system when it is first asked, for instance by httpx for the name of
        # a file to upload. That must not fall to a plugin, to whom it would be refused.
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
    if capability is not None:  # asked first: `sys._getframe` is an audit event too
        plugin.judge(capability, event, args, sys._getframe(1))
