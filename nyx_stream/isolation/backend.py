"""What the host asks of an isolation level, whatever it is made of. Knows no level and no host."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

from nyx_stream.audit import AuditSink
from nyx_stream.capabilities.import_paths import ImportPaths
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.isolation.code.content_digests import Digests
from nyx_stream.policy.approval import Approval
from nyx_stream.policy.grant import Grant
from nyx_stream.policy.manifest import Manifest

if TYPE_CHECKING:
    import asyncio

Level: TypeAlias = Literal["inline", "process", "container"]

CAPABILITIES = ("http", "files", "connect")
"""The names of the capabilities that a level provides, and that can be revoked."""


@dataclass(frozen=True, slots=True)
class PluginSource:
    """Where a plugin's code lies.

    Attributes:
        manifest: its manifest, not yet bound to directories.
        folder: absolute path of the directory that `plugin.toml` lies in.
        root: absolute path of the directory that its modules are found below.
        names: top-level module names below `root` that are the plugin's own; `None`: all of them.
        distribution: name of the installed distribution, or `None` for a plugin folder.
        content: the hash of its content, where the host compares it; `None` elsewhere.
        digests: then, what its modules are compared with when they are imported.
    """

    manifest: Manifest
    folder: str
    root: str
    names: frozenset[str] | None = None
    distribution: str | None = None
    content: str | None = None
    digests: Digests | None = None

    def with_content(self, content: str, digests: Digests) -> Self:
        """Returns it with the hash of its content, and those of its files."""
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
    """Everything a level needs to run one plugin once.

    `crashed` is to be called, on the event loop, when the plugin failed outside a call.
    """

    source: PluginSource
    grant: Grant
    guard: SandboxGuard
    audit: AuditSink | None
    leases: Mapping[str, Lease]
    """By capability; the level holds each capability on a lease below its one."""
    import_paths: ImportPaths
    """Where the host's plugins are imported from: nothing is written there for a plugin."""
    crashed: Callable[[BaseException], None]
    ask: Callable[[str, str, str], Awaitable[Approval]]
    """Asks the host for an optional permission: its kind, what for, and why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process of one plugin uses: resident bytes, and processor time in seconds since it was started."""

    memory: int
    cpu_seconds: float


@runtime_checkable
class Measured(Protocol):
    """An `PluginBackend` whose plugin has a process of its own."""

    def usage(self) -> Usage | None:
        """Measures it; `None` if there is no process now. Can be called on any thread."""


class Backend(Protocol):
    """An isolation level, with what its plugins share. One per host."""

    def isolate(self, assignment: Assignment) -> "PluginBackend":
        """Prepares one plugin; nothing of it runs yet."""

    async def aclose(self) -> None:
        """Ends what the plugins shared. All of them have been stopped."""


class PluginBackend(Protocol):
    """One plugin, loaded once at one level. All of it is called on the host's event loop.

    The host sees to states, queues, timeouts and accounting; a level only carries out.
    """

    @property
    def methods(self) -> Mapping[str, bool]:
        """The exported methods, known after `start`: whether each is a stream."""

    async def start(self) -> None:
        """Loads the plugin's code and runs its `setup`.

        Raises:
            PluginLoadError: the code does not import, or the entry point is no plugin.
            PluginSetupError: `setup` raised.
        """

    async def call(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Calls a method that is no stream; both ways validated.

        Raises:
            InvalidArguments, InvalidResult: a value does not fit the method's annotations.
            PluginCallError: the method raised. A `SandboxDenied` passes through as itself.
        """

    def stream(self, method: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Calls a method that is a stream; each item is validated. Raises as `call`, at the first step."""

    async def stop(self, sparing: Collection["asyncio.Task[Any]"]) -> None:
        """Runs `teardown`, ends the plugin's tasks, closes its capabilities, removes its code.

        Can be called in any state, once.

        Args:
            sparing: tasks of the host that would not leave a call; they are not the plugin's to cancel.

        Raises:
            PluginCallError: `teardown` raised; everything else was done nevertheless.
        """

    def update(self, grant: Grant) -> None:
        """Takes a new grant into use; the guard of the assignment has it already."""

    def trace(self, error: BaseException) -> str:
        """Returns the traceback of an error that came from the plugin, safe to print."""
