"""Making the capabilities of one plugin, on first use, and ending them. Knows no isolation level."""

from collections.abc import Callable, Mapping
from typing import Any

from nyx_stream.attribution import as_host
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import SandboxGuard
from nyx_stream.isolation.seam import CAPABILITIES


def _http(guard: SandboxGuard, lease: Lease, **options: Any) -> Any:
    from nyx_stream.capabilities.http import GuardedClient

    return GuardedClient(guard, lease, **options)


def _files(guard: SandboxGuard, lease: Lease, **options: Any) -> Any:
    from nyx_stream.capabilities.files import GuardedFiles

    return GuardedFiles(guard, lease, **options)


# Each imports its capability when it is first made: a plugin without HTTP costs no import of an HTTP client.
_MAKERS: Mapping[str, Callable[..., Any]] = {"http": _http, "files": _files}


class Provision:
    """The capabilities of one plugin and their leases."""

    def __init__(self, plugin: str, guard: SandboxGuard, options: Mapping[str, Any]) -> None:
        self._guard = guard
        self._options = options
        self._leases = {name: Lease(plugin, name) for name in CAPABILITIES}
        self._made: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """Returns the capability, made on first use. A revoked one is still handed out: it refuses by itself."""
        if name not in self._made:
            with as_host():
                maker = _MAKERS[name]
                self._made[name] = maker(self._guard, self._leases[name], **self._options.get(name, {}))
        return self._made[name]

    def revoke(self, name: str, reason: str) -> None:
        """Ends one capability. Raises `KeyError` for a name that there is not."""
        with as_host():
            self._leases[name].revoke(reason)

    async def close(self, reason: str) -> list[Exception]:
        """Ends all of them and closes what they hold; returns what went wrong meanwhile."""
        failures: list[Exception] = []
        for name, lease in self._leases.items():
            try:
                lease.revoke(reason)
                close = getattr(self._made.pop(name, None), "aclose", None)
                if close is not None:
                    await close()
            except Exception as error:  # one capability that does not close must not keep the others open
                failures.append(error)
        return failures
