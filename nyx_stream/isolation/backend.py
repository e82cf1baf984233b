"""What the host requires of every isolation level."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

from nyx_stream.attribution import as_host
from nyx_stream.audit import AuditSink
from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.isolation.code.modules import Digests
from nyx_stream.policy.approval import Approval
from nyx_stream.policy.grant import Grant
from nyx_stream.policy.manifest import Manifest

if TYPE_CHECKING:
    import asyncio

Level: TypeAlias = Literal["inline", "process", "container"]


@dataclass(frozen=True, slots=True)
class PluginSource:
    """Where a plugin's code is.

    Attributes:
        manifest: its manifest, not yet bound to directories.
        folder: absolute path of the directory with `plugin.toml`.
        root: absolute path of the directory that its modules are imported from.
        names: top-level module names below `root` that are the plugin's own, or `None` for all of them.
        distribution: name of the installed distribution, or `None` for a plugin folder.
        content: the hash of its files, if the host verifies it.
        digests: the digests of its files, if the host verifies them at import.
    """

    manifest: Manifest
    folder: str
    root: str
    names: frozenset[str] | None = None
    distribution: str | None = None
    content: str | None = None
    digests: Digests | None = None

    def with_content(self, content: str, digests: Digests) -> Self:
        """Returns a copy with the hash of its files and their digests."""
        return replace(self, content=content, digests=digests)

    @property
    def locator(self) -> str:
        """What finds the plugin again: its folder, or the id of an installed plugin."""
        return self.folder if self.distribution is None else self.manifest.id

    @property
    def imported_paths(self) -> tuple[str, ...]:
        """Absolute paths of the plugin's own code."""
        if self.names is None:
            return (self.root,)
        return (self.folder, *(os.path.join(self.root, name) for name in self.names))


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything that a level needs to run one plugin once."""

    source: PluginSource
    grant: Grant
    guard: SandboxGuard
    audit: AuditSink | None
    leases: Mapping[str, Lease]
    """By capability. The level holds each capability on a child of its lease."""
    import_paths: ImportPaths
    """Where the host's plugins are imported from. No plugin may write there."""
    crashed: Callable[[BaseException], None]
    """To be called on the event loop when the plugin fails outside a call."""
    ask: Callable[[str, str, str], Awaitable[Approval]]
    """Asks the host for an optional permission: its kind, its target, and the reason."""


def environment_of(grant: Grant) -> dict[str, str]:
    """Returns the granted environment variables that are set."""
    with as_host():
        return {name: os.environ[name] for name in grant.env if name in os.environ}


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Resident bytes of a plugin's process, and its processor time in seconds since it started."""

    memory: int
    cpu_seconds: float


@runtime_checkable
class Measured(Protocol):
    """A `PluginBackend` whose plugin has its own process."""

    def usage(self) -> ProcessUsage | None:
        """Measures the process, or returns `None` if there is none now. May be called on any thread."""


class Backend(Protocol):
    """An isolation level and what its plugins share. One per host."""

    def isolate(self, assignment: Assignment) -> "PluginBackend":
        """Prepares one plugin. Runs none of its code yet."""

    async def aclose(self) -> None:
        """Closes what the plugins shared. Every plugin has been stopped."""


class PluginBackend(Protocol):
    """One plugin, loaded once at one level. Used on the host's event loop only.

    The host handles states, queues, timeouts and accounting; a level only carries out.
    """

    @property
    def methods(self) -> Mapping[str, bool]:
        """The exported methods: whether each is a stream. Known after `start`."""

    async def start(self) -> None:
        """Loads the plugin's code and runs its `setup`.

        Raises:
            PluginLoadError: the code doesn't import, or the entry point isn't a plugin.
            PluginSetupError: `setup` raised.
        """

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method that isn't a stream. Arguments and result are validated.

        Raises:
            InvalidArguments, InvalidResult: a value doesn't fit the method's annotations.
            PluginCallError: the method raised. A `SandboxDenied` is raised unchanged.
        """

    def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Calls a method that is a stream; each item is validated. Raises as `call`, at the first step."""

    async def stop(self, sparing: Collection["asyncio.Task[Any]"]) -> None:
        """Runs `teardown`, ends the plugin's tasks, closes its capabilities and removes its code.

        May be called in any state, once.

        Args:
            sparing: tasks of the host that are stuck in a call and must not be cancelled.

        Raises:
            PluginCallError: `teardown` raised. Everything else was done nevertheless.
        """

    def update(self, grant: Grant) -> None:
        """Applies a new grant. The guard of the assignment already has it."""

    def trace(self, error: BaseException) -> str:
        """Returns the traceback of an error that came from the plugin, safe to print."""
