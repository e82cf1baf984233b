"""What the host raised for a request, as the errors of the plugin's own HTTP library. Knows neither gate nor body."""

from typing import Any

from nyx_stream.capabilities.http.library_adapter import LibraryAdapter
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked, SandboxDenied
from nyx_stream.isolation.remote.wire.messages import CapabilityError


def raise_as(dialect: LibraryAdapter, request: Any, error: BaseException) -> None:
    """Raises the dialect's error for one that came from the host; returns if `error` is none."""
    found = _in_terms_of(dialect, error)
    if found is not None:
        found.request = request
        raise found from error


def _in_terms_of(dialect: LibraryAdapter, error: BaseException) -> Any:
    if isinstance(error, LimitExceeded):
        return dialect.exceeded(plugin=error.plugin, limit=error.limit, allowed=error.allowed, detail=error.detail)
    if isinstance(error, NetworkDenied | Revoked):
        kind: Any = dialect.revoked if isinstance(error, Revoked) else dialect.denied
        return _rebuilt(kind, error)
    if isinstance(error, CapabilityError):
        library = getattr(dialect.library, error.name, None)
        if isinstance(library, type) and issubclass(library, dialect.library.RequestError):
            return library(error.message)
        if library is dialect.library.InvalidURL:
            raise library(error.message) from error
    return None


def _rebuilt(kind: type[SandboxDenied], error: SandboxDenied) -> SandboxDenied:
    return kind(
        plugin=error.plugin,
        capability=error.capability,
        action=error.action,
        target=error.target,
        rule=error.rule,
        reason=error.reason,
        hint=error.hint,
    )
