"""The error tree of Nyx: every error that it raises to a host, a plugin or the command line.

NyxError
├── PolicyError (ValueError)              a policy file or call is wrong: `problems` lists every fault
│   └── ManifestError
├── SandboxDenied (PermissionError)       a capability refused: plugin, capability, action, target, rule, reason
│   ├── NetworkDenied
│   ├── FilesystemDenied
│   ├── TripwireDenied                    plugin code at level `inline` bypassed its capabilities
│   └── Revoked                           the capability's lease has ended
├── AuditError                            the audit log cannot be opened, or lost events
├── WatchUnavailable (ImportError)        watching a policy file needs the extra `watch`
├── LockError                             the lock file is broken or cannot be trusted
├── LimitExceeded                         a limit of the grant was reached: body bytes, header bytes, …
└── PluginError                           `plugin` names it
    ├── PluginNotFound (LookupError)      no such folder, distribution or loaded plugin
    ├── PluginLoadError                   the entry point does not import or is not a Plugin
    │   ├── ContentChanged                its files differ from those that the lock file records
    │   └── UpdateWaiting                 a new version asks for more than the accepted one
    ├── PluginSetupError                  `setup` raised; the cause is chained
    ├── PluginStateError                  the lifecycle does not allow that now
    ├── UnknownMethod (LookupError)
    ├── InvalidArguments (ValueError)
    ├── InvalidResult (ValueError)
    ├── PluginBusy                        the plugin's queue of calls is full
    ├── PluginTimeout (TimeoutError)
    ├── PluginCallError                   the method itself raised; the cause is chained
    └── PluginCrashed                     the plugin's task or process ended during the call
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nyx_stream.text import escape

__all__ = [
    "AuditError",
    "ContentChanged",
    "FilesystemDenied",
    "InvalidArguments",
    "InvalidResult",
    "LimitExceeded",
    "LockError",
    "ManifestError",
    "NetworkDenied",
    "NyxError",
    "PluginBusy",
    "PluginCallError",
    "PluginCrashed",
    "PluginError",
    "PluginLoadError",
    "PluginNotFound",
    "PluginSetupError",
    "PluginStateError",
    "PluginTimeout",
    "PolicyError",
    "Problem",
    "Revoked",
    "SandboxDenied",
    "TripwireDenied",
    "UnknownMethod",
    "UpdateWaiting",
    "WatchUnavailable",
]


class NyxError(Exception):
    """The base class of all errors of Nyx."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration text.

    Attributes:
        where: the file or builder call.
        line: the line, from 1, or `None`.
        excerpt: the text that is wrong, or `None`.
        offset: the index of the fault in `excerpt`, for the caret.
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
        # Escaping can lengthen the text before the fault; the caret goes under the escaped text.
        caret = len(escape(self.excerpt[: self.offset]))
        return f"{head}\n    {escape(self.excerpt)}\n    {' ' * caret}^"


class PolicyError(NyxError, ValueError):
    """A policy cannot be built. The policy is at fault; `problems` has every fault found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ManifestError(PolicyError):
    """A plugin.toml cannot be read. The plugin is at fault; `problems` has every fault found."""


class SandboxDenied(NyxError, PermissionError):
    """A capability refused an operation before it made any system call or sent any packet.

    Attributes:
        plugin: id of the plugin, or `None` for a guard without a plugin.
        capability: `"connect"`, `"http"`, `"files"`, …
        action: the operation: `"GET"`, `"connect"`, `"read"`, `"write"`, …
        target: the operation's target, as the plugin gave it; escaped in the text of the error.
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
        # The text is built on demand, so a denial that is caught and dropped doesn't search for a fix.
        super().__init__(errno.EACCES, "denied")

    @property
    def hint(self) -> str:
        """What the policy grants, what the manifest asks for, and the smallest change that would help; may be empty."""
        return self._hint if isinstance(self._hint, str) else self._hint()

    def __str__(self) -> str:
        who = f"{escape(self.plugin)}: " if self.plugin else ""
        # The action can be text from the plugin too: the method of a request.
        what = " ".join(dict.fromkeys((self.capability, self.action)))
        head = f"{who}{escape(what)} {escape(self.target)} denied: {self.reason}"
        hint = self.hint
        return f"{head}\n{hint}" if hint else head

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[..., "SandboxDenied"], tuple[object, ...]]:
        fields = ("plugin", "capability", "action", "target", "rule", "reason", "hint")
        return _rebuild, (type(self), {name: getattr(self, name) for name in fields})


def _rebuild(kind: type[SandboxDenied], fields: dict[str, str]) -> SandboxDenied:
    return kind(**fields)


class NetworkDenied(SandboxDenied):
    """A connection or a request is not granted."""


class FilesystemDenied(SandboxDenied):
    """A path is not granted, or leads outside the granted prefix."""


class TripwireDenied(SandboxDenied):
    """Plugin code at level `inline` bypassed its capabilities; `target` ends with its source line."""


class Revoked(SandboxDenied):
    """The capability's lease has ended: revoked, expired, used up, or its plugin was unloaded."""


class WatchUnavailable(NyxError, ImportError):
    """Watching a policy file needs the extra `watch`, which isn't installed."""


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
    """The audit log cannot be opened, or lost events. `path` names it, `lost` is the number of events."""

    def __init__(self, path: str, message: str, lost: int = 0) -> None:
        self.path = path
        self.lost = lost
        super().__init__(f"audit log {path}: {message}")


class LockError(NyxError):
    """The lock file `path` is broken or cannot be trusted. The operation that needed it was not performed."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(f"lock file {path}: {escape(message)}")


class PluginError(NyxError):
    """One plugin failed; other plugins aren't affected."""

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin = plugin
        self.message = message
        super().__init__(f"{escape(plugin)}: {message}")


class PluginNotFound(PluginError, LookupError):
    """There is no such plugin folder, distribution or loaded plugin."""


class PluginLoadError(PluginError):
    """The entry point does not import, or is not a subclass of `Plugin`. The cause is chained."""


class ContentChanged(PluginLoadError):
    """The plugin's files differ from those that the lock file records for this version. None of its code ran."""


class UpdateWaiting(PluginLoadError):
    """This version asks for more than the accepted one. It runs after an operator has accepted it."""


class PluginSetupError(PluginError):
    """`setup` raised. The cause is chained."""


class PluginStateError(PluginError):
    """The plugin's state does not allow this operation now."""


class UnknownMethod(PluginError, LookupError):
    """The plugin exports no method of that name."""


class InvalidArguments(PluginError, ValueError):
    """The arguments don't match the method's annotations. The caller is at fault."""


class InvalidResult(PluginError, ValueError):
    """The result doesn't match the method's annotation. The plugin is at fault."""


class PluginBusy(PluginError):
    """The plugin's queue of calls is full; the call was not started."""


class PluginTimeout(PluginError, TimeoutError):
    """The call exceeded its timeout and was cancelled."""


class PluginCallError(PluginError):
    """The called method raised. The cause is chained."""


class PluginCrashed(PluginError):
    """The plugin ended during the call: a background task failed, or its process died."""
