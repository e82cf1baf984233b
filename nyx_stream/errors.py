"""The error tree of Nyx: every error that a host, a plugin or the command line can meet.

    NyxError
    ├── PolicyError (ValueError)              a policy or manifest file is wrong: `problems` lists every fault
    │   └── ManifestError
    ├── SandboxDenied (PermissionError)       a capability refused: plugin, capability, action, target, rule, reason
    │   ├── NetworkDenied
    │   ├── FilesystemDenied
    │   ├── TripwireDenied                    plugin code went round its capabilities, inline level
    │   └── Revoked                           the host took the capability back
    ├── AuditError                            the audit log cannot be opened, or lost events
    ├── WatchUnavailable (ImportError)        a policy file is to be watched, and the extra `watch` is missing
    ├── LockError                             the lock file is broken, or cannot be trusted
    ├── LimitExceeded                         a limit of the grant was reached: body bytes, header bytes, …
    └── PluginError                           `plugin` names it
        ├── PluginNotFound (LookupError)      no such folder, distribution or loaded plugin
        ├── PluginLoadError                   the entry point does not import or is not a Plugin
        │   ├── ContentChanged                its files are not those that the lock file has for its version
        │   └── UpdateWaiting                 a new version wants more than the accepted one
        ├── PluginSetupError                  `setup` raised; the cause is chained
        ├── PluginStateError                  the lifecycle does not allow that now
        ├── UnknownMethod (LookupError)
        ├── InvalidArguments (ValueError)
        ├── InvalidResult (ValueError)
        ├── PluginBusy                        the plugin's queue of calls is full
        ├── PluginTimeout (TimeoutError)
        ├── PluginCallError                   the method itself raised; the cause is chained
        └── PluginCrashed                     the plugin's task or process ended during the call

This module imports nothing of Nyx but `text`.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nyx_stream.text import escape

Denied = TypeVar("Denied", bound="SandboxDenied")


class NyxError(Exception):
    """Base of every error that Nyx raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration text.

    `where` names the file or builder call, `line` and `column` count from 1 (`None` where unknown), `excerpt` is
    the text that is wrong and `offset` the place of the fault inside it, for the caret.
    """

    message: str
    where: str | None = None
    line: int | None = None
    excerpt: str | None = None
    offset: int = 0

    def __str__(self) -> str:
        place = self.where or ""
        if self.line is not None:
            place = f"{place}:{self.line}"
        head = f"{place}: {self.message}" if place else self.message
        if self.excerpt is None:
            return head
        # Escaping may lengthen what stands before the fault: the caret goes under the escaped text.
        caret = len(escape(self.excerpt[: self.offset]))
        return f"{head}\n    {escape(self.excerpt)}\n    {' ' * caret}^"


class PolicyError(NyxError, ValueError):
    """A policy cannot be built. Whoever wrote the policy is at fault; `problems` holds every fault found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ManifestError(PolicyError):
    """A plugin.toml cannot be read. The plugin's author is at fault; `problems` holds every fault found."""


class SandboxDenied(NyxError, PermissionError):
    """A capability refused an operation. Nothing was done: no system call, no packet.

    Attributes:
        plugin: id of the plugin, or `None` for a guard that serves no plugin.
        capability: `"connect"`, `"http"`, `"files"`, …
        action: what was tried: `"GET"`, `"connect"`, `"read"`, `"write"`, …
        target: what it was tried on, as the plugin gave it; escaped in the text of the error.
        rule: text of the rule that decided, or `None` if no rule matched.
        reason: why, in words.
    """

    def __init__(
        self,
        *,
        plugin: str | None,
        capability: str,
        action: str,
        target: str,
        rule: str | None,
        reason: str,
        hint: Callable[[], str] | str = "",
    ) -> None:
        self.plugin = plugin
        self.capability = capability
        self.action = action
        self.target = target
        self.rule = rule
        self.reason = reason
        self._hint = hint
        # The text is built when it is asked for: a denial that is caught and dropped costs no search for a fix.
        super().__init__(errno.EACCES, "denied")

    @property
    def hint(self) -> str:
        """What was granted, what was asked, and the smallest change that would allow it; may be empty."""
        return self._hint if isinstance(self._hint, str) else self._hint()

    def __str__(self) -> str:
        who = f"{escape(self.plugin)}: " if self.plugin else ""
        # The action may be the plugin's text too: the method of a request.
        what = " ".join(dict.fromkeys((self.capability, self.action)))
        head = f"{who}{escape(what)} {escape(self.target)} denied: {self.reason}"
        hint = self.hint
        return f"{head}\n{hint}" if hint else head

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def rebuilt_as(self, kind: type[Denied]) -> Denied:
        """Returns this denial as an error of another class."""
        return kind(
            plugin=self.plugin,
            capability=self.capability,
            action=self.action,
            target=self.target,
            rule=self.rule,
            reason=self.reason,
            hint=self._hint,
        )

    def __reduce__(self) -> tuple[Callable[..., "SandboxDenied"], tuple[object, ...]]:
        fields = ("plugin", "capability", "action", "target", "rule", "reason", "hint")
        return _rebuild, (type(self), {name: getattr(self, name) for name in fields})


def _rebuild(kind: type[SandboxDenied], fields: dict[str, str]) -> SandboxDenied:
    return kind(**fields)


class NetworkDenied(SandboxDenied):
    """A connection or a request is not granted."""


class FilesystemDenied(SandboxDenied):
    """A path is not granted, or leads out of what is granted."""


class TripwireDenied(SandboxDenied):
    """Plugin code at level `inline` went round its capabilities; `target` ends with its source line."""


class Revoked(SandboxDenied):
    """The host took the capability back, its time is over, its budget used up, or its plugin was unloaded."""


class WatchUnavailable(NyxError, ImportError):
    """A policy file is to be watched, and what watches files is not installed."""


class LimitExceeded(NyxError):
    """A limit of the grant was reached. `limit` names it, `allowed` is its value in the unit of the limit."""

    def __init__(self, *, plugin: str | None, limit: str, allowed: int, detail: str) -> None:
        self.plugin = plugin
        self.limit = limit
        self.allowed = allowed
        self.detail = detail
        who = f"{escape(plugin)}: " if plugin else ""
        super().__init__(f"{who}{limit} exceeded: {detail} (limit {allowed})")


class AuditError(NyxError):
    """The audit log cannot be opened, or lost events. `path` names it, `lost` counts the events."""

    def __init__(self, path: str, message: str, lost: int = 0) -> None:
        self.path = path
        self.lost = lost
        super().__init__(f"audit log {path}: {message}")


class LockError(NyxError):
    """The lock file is broken, or cannot be trusted. Nothing that depends on it was done. `path` names it."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(f"lock file {path}: {escape(message)}")


class PluginError(NyxError):
    """Something is wrong with one plugin; no other plugin is touched."""

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin = plugin
        self.message = message
        super().__init__(f"{escape(plugin)}: {message}")


class PluginNotFound(PluginError, LookupError):
    """No such plugin folder, distribution or loaded plugin."""


class PluginLoadError(PluginError):
    """The entry point does not import, or is not a subclass of `Plugin`. The cause is chained."""


class ContentChanged(PluginLoadError):
    """The plugin's files are not those that the lock file has for this version. Nothing of them ran."""


class UpdateWaiting(PluginLoadError):
    """This version wants more than the one that was accepted; it runs when somebody has accepted it."""


class PluginSetupError(PluginError):
    """`setup` raised. The cause is chained."""


class PluginStateError(PluginError):
    """The plugin's state does not allow this operation now."""


class UnknownMethod(PluginError, LookupError):
    """The plugin exports no method of that name."""


class InvalidArguments(PluginError, ValueError):
    """The arguments do not fit the method's annotations. The caller is at fault."""


class InvalidResult(PluginError, ValueError):
    """The result does not fit the method's annotation. The plugin is at fault."""


class PluginBusy(PluginError):
    """The plugin's queue of calls is full; nothing was started."""


class PluginTimeout(PluginError, TimeoutError):
    """The call outlived its timeout and was cancelled."""


class PluginCallError(PluginError):
    """The called method raised. The cause is chained."""


class PluginCrashed(PluginError):
    """The plugin ended while the call ran: a background task failed, or its process died."""
