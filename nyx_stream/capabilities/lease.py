"""The revocation handle of a capability. Knows neither what it revokes nor how: the holder registers how to end it."""

from collections.abc import Callable
from itertools import count

from nyx_stream.errors import Revoked


class Lease:
    """The host's hold on one capability of one plugin.

    A capability calls `check` before each operation and `hold` for everything that outlives one (an open file, a
    response in flight). `revoke` ends all of it, once and for good; it is called on the event loop's thread.
    """

    __slots__ = ("_holds", "_numbers", "_reason", "capability", "plugin")

    def __init__(self, plugin: str | None, capability: str) -> None:
        self.plugin = plugin
        self.capability = capability
        self._reason: str | None = None
        self._holds: dict[int, Callable[[], object]] = {}
        self._numbers = count()

    @property
    def ended(self) -> bool:
        """Whether the lease was revoked."""
        return self._reason is not None

    def check(self, action: str = "use", target: str = "") -> None:
        """Raises `Revoked` once the lease has ended."""
        if self._reason is not None:
            raise self.error(action, target)

    def error(self, action: str = "use", target: str = "") -> Revoked:
        """The error for an operation that the end of this lease stops."""
        return Revoked(
            plugin=self.plugin,
            capability=self.capability,
            action=action,
            target=target,
            rule=None,
            reason=f"revoked: {self._reason}",
        )

    def hold(self, end: Callable[[], object]) -> Callable[[], None]:
        """Registers `end`, to be called when the lease ends; returns a function that takes it back.

        `end` must not block and must not raise. Raises `Revoked` if the lease has already ended, so that nothing can
        be registered behind a revocation's back.
        """
        self.check()
        number = next(self._numbers)
        self._holds[number] = end

        def release() -> None:
            self._holds.pop(number, None)

        return release

    def revoke(self, reason: str) -> None:
        """Ends the lease and everything held through it. Further calls change nothing."""
        if self._reason is not None:
            return
        self._reason = reason
        while self._holds:
            _, end = self._holds.popitem()
            end()
