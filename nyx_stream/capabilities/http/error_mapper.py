"""How the gates answer a plugin in the terms of its library: denials, revocations, limits and faults.

Decides nothing; says what was decided, and has every refusal audited once.
"""

from typing import Any

from nyx_stream.capabilities.http.errors import Exceeded, RequestRefused, refusal
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.capabilities.network import DialRefused, netloc
from nyx_stream.guard import Decision, SandboxGuard


class ErrorMapper:
    """The errors of one plugin's client, each with its `request` set (or with a call that builds it)."""

    __slots__ = ("_guard", "_lease", "dialect")

    def __init__(self, guard: SandboxGuard, lease: Lease, dialect: LibraryAdapter) -> None:
        self._guard = guard
        self._lease = lease
        self.dialect = dialect

    @property
    def plugin(self) -> str | None:
        """Id of the plugin."""
        return self._guard.plugin

    def denied(self, method: str, url: Any, decision: Decision, request: Any) -> Exception:
        """The denial of a request, audited."""
        shown = _without_password(url, self.dialect)
        denial: Any = self._guard.request_error(method, shown, decision, self.dialect.denied)
        self._guard.record(denial.capability, denial.action, denial.target, decision)
        return _about(request, denial)

    def redirect_denied(self, location: str, reason: str, request: Any) -> Exception:
        """The denial of a redirect whose Location may not be followed, audited."""
        decision = refusal(reason)
        self._guard.record("http", "redirect", location, decision)
        return _about(request, self._guard.denial(self.dialect.denied, "http", "redirect", location, decision))

    def admit(self, request: Any) -> None:
        """Raises the dialect's `Revoked`, audited, if the lease has ended before the request began."""
        if self._lease.ended:
            raise self._refused(request)

    def spend(self, request: Any) -> None:
        """Takes one request from the lease's budget. Raises the dialect's `Revoked`, audited, if there is none left."""
        try:
            self._lease.spend("requests")
        except Spent as spent:
            raise self._refused(request, spent.reason) from spent

    def check(self, request: Any) -> None:
        """Raises the dialect's `Revoked` once the lease has ended, for a request under way."""
        if self._lease.ended:
            raise self._revoked(request)

    def explain(self, error: BaseException, request: Any) -> None:
        """Raises the dialect's error for one of the inner parts; returns if `error` is none of theirs."""
        if isinstance(error, DialRefused):
            raise self._dial_denied(error, request) from error
        if isinstance(error, RequestRefused):
            raise self.denied(request.method, request.url, error.decision, request) from error
        if isinstance(error, Exceeded):
            raise self._exceeded(error, request) from error
        if isinstance(error, Spent):
            raise self._refused(request, error.reason) from error
        if isinstance(error, Exception):
            if self._lease.ended and not isinstance(error, self.dialect.revoked):
                raise self._revoked(request) from error
            fault = self.dialect.fault(error)
            if fault is not None:
                raise _about(request, fault) from error

    def _dial_denied(self, error: DialRefused, request: Any) -> Exception:
        target = f"{netloc(error.host, error.port)} at {error.at}"
        denial: Any
        if error.at == error.host:
            denial = self._guard.connect_error(error.host, error.port, error.decision, self.dialect.denied)
        else:  # a line for the name is there: a hint at one would say nothing of the address that was refused
            denial = self._guard.denial(self.dialect.denied, "connect", "connect", target, error.decision)
        self._guard.record(denial.capability, denial.action, target, error.decision)
        return _about(request, denial)

    def _refused(self, request: Any, reason: str | None = None) -> Exception:
        revoked: Any = self._revoked(request, reason)
        self._guard.record("http", str(request.method), revoked.target, refusal(revoked.reason))
        return revoked  # type: ignore[no-any-return]  # a class of the dialect

    def _revoked(self, request: Any, reason: str | None = None) -> Exception:
        error = self._lease.error("request", str(_without_password(request.url, self.dialect)), reason)
        names = ("plugin", "capability", "action", "target", "rule", "reason")
        return _about(request, self.dialect.revoked(**{name: getattr(error, name) for name in names}))

    def _exceeded(self, error: Exceeded, request: Any) -> Exception:
        exceeded = self.dialect.exceeded(
            plugin=self.plugin, limit=error.limit, allowed=error.allowed, detail=error.detail
        )
        return _about(request, exceeded)


def _about(request: Any, error: Any) -> Exception:
    error.request = request
    return error  # type: ignore[no-any-return]  # a class of the dialect


def _without_password(url: Any, dialect: LibraryAdapter) -> Any:
    # Errors and audit events are read by others than the plugin.
    if type(url) is dialect.library.URL and url.userinfo:
        return str(url.copy_with(userinfo=b"[secure]"))
    return url
