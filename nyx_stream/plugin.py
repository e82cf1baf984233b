"""The interface for plugin authors: `Plugin` and `export`.

A plugin gets its capabilities through a `Context`, which the isolation level provides.
"""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

if TYPE_CHECKING:
    import asyncio
    import logging

    from anyio.abc import ByteStream

    from nyx_stream.capabilities.files import GuardedFiles
    from nyx_stream.capabilities.http import GuardedClient
    from nyx_stream.policy.approval import Approval
    from nyx_stream.policy.manifest import Manifest

_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "__nyx_export__"


class Context(Protocol):
    """What an isolation level provides to one plugin."""

    @property
    def manifest(self) -> "Manifest":
        """The plugin's manifest."""

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """The plugin's logger."""

    @property
    def env(self) -> Mapping[str, str]:
        """The granted environment variables that are set."""

    def capability(self, name: str) -> Any:
        """Returns the capability; creates it on first use."""

    async def ask(self, kind: str, target: str, why: str) -> "Approval":
        """Asks the host for an optional permission."""

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Starts a task that belongs to the plugin."""


class Plugin:
    """The base class of every plugin. A load creates one instance, which runs on the event loop of its level.

    `setup` and `teardown` are optional. The host can call methods marked with `export`. The attributes below are
    already set in `__init__`, which takes no arguments.
    """

    _context: Context

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("setup", "teardown"):
            if not inspect.iscoroutinefunction(getattr(cls, name)):
                raise TypeError(f"{cls.__name__}.{name} must be an async method")

    async def setup(self) -> None:
        """Runs once before the first call. If it raises, the load fails."""

    async def teardown(self) -> None:
        """Runs once after the last call, while the capabilities still work."""

    @property
    @final
    def id(self) -> str:
        """The id in `plugin.toml`."""
        return self._context.manifest.id

    @property
    @final
    def manifest(self) -> "Manifest":
        """The plugin's own manifest."""
        return self._context.manifest

    @property
    @final
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """The host's logger `nyx.plugin.<id>`."""
        return self._context.log

    @property
    @final
    def env(self) -> Mapping[str, str]:
        """The granted environment variables that are set."""
        return self._context.env

    @property
    @final
    def http(self) -> "GuardedClient":
        """The guarded HTTP client, an `httpx.AsyncClient`. Raises `NetworkDenied` if a request is not granted."""
        client: GuardedClient = self._context.capability("http")
        return client

    @property
    @final
    def files(self) -> "GuardedFiles":
        """The guarded file opener. Raises `FilesystemDenied` if a path is not granted."""
        files: GuardedFiles = self._context.capability("files")
        return files

    @final
    async def connect(self, host: str, port: int) -> "ByteStream":
        """Connects to a host by TCP, if a connect rule grants it; returns an anyio byte stream.

        Raises:
            NetworkDenied: it is not granted, or the name resolves to an address that is not.
            OSError: the connection failed.
        """
        stream: ByteStream = await self._context.capability("connect")(host, port)
        return stream

    @final
    async def request(self, kind: str, target: str, *, why: str = "") -> "Approval":
        """Asks the host for a permission that the manifest marks as optional, and returns the result.

        `if await self.request("request", "GET https://api.example.com/v1/**", why="to show the map"): …` An approval
        grants the manifest's rule that covers `target`. A refusal is a normal result, also for a permission that the
        manifest does not have. The approver may be a person, so this can take long. If the waiting call is cancelled,
        the question stays open, and the next request for the same permission gets its answer.

        Args:
            kind: `"connect"`, `"request"`, `"read"` or `"write"`.
            target: a rule of that kind: the one in the manifest, or a narrower one.
            why: one sentence for the approver.

        Raises:
            TypeError, ValueError: an argument is not text, or has more than 2048 characters.
        """
        from nyx_stream.policy.approval import MAX_KIND_LENGTH, MAX_TEXT_LENGTH  # few plugins ask

        texts = []
        for name, given, longest in (
            ("kind", kind, MAX_KIND_LENGTH),
            ("target", target, MAX_TEXT_LENGTH),
            ("why", why, MAX_TEXT_LENGTH),
        ):
            if not isinstance(given, str):
                raise TypeError(f"{name} is a str, not {type(given).__name__}")
            # A lone surrogate can't be encoded for another process.
            text = given.encode("utf-8", "backslashreplace").decode("utf-8")
            if len(text) > longest:
                raise ValueError(f"{name} has more than {longest} characters")
            texts.append(text)
        return await self._context.ask(*texts)

    @final
    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Starts a background task. It ends with the plugin; if it raises, the plugin fails."""
        return self._context.spawn(coroutine)


def export(method: _Method) -> _Method:
    """Marks an async method, or an async generator (a stream of results), as callable by the host.

    pydantic validates arguments and results against the annotations. A method without a return annotation returns JSON
    values.

    Raises:
        TypeError: `method` is neither of them.
    """
    if not (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)):
        raise TypeError(f"only async methods and async generators can be exported, not {method!r}")
    setattr(method, _MARK, True)
    return method


def exported(plugin: type[Plugin]) -> tuple[str, ...]:
    """Returns the names of the exported methods of a plugin class, sorted.

    An override is exported only if it is marked itself.
    """
    found: dict[str, object] = {}
    for base in reversed(plugin.__mro__):
        found.update(vars(base))
    return tuple(sorted(name for name, value in found.items() if hasattr(value, _MARK)))
