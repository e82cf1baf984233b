"""The first gate: the one seam that first requests, redirect hops, auth flows, `send` and `stream` all pass.

Takes a snapshot of the plugin's request, asks the guard, builds a fresh request from the canonical parts of the
verdict, puts the host's credentials into it, and hands back a response from which no attribute leads to the pool.
Knows no client class.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nyx_stream.capabilities.dialling import Dialler
from nyx_stream.capabilities.http import headers
from nyx_stream.capabilities.http.credentials import Keyring, Unresolved, add_credentials
from nyx_stream.capabilities.http.error_mapper import ErrorMapper
from nyx_stream.capabilities.http.errors import refusal
from nyx_stream.capabilities.http.exchange import Bounds, Exchange, Message, Origin
from nyx_stream.capabilities.http.in_flight import InFlight
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter
from nyx_stream.capabilities.http.request import BadRequest, snapshot
from nyx_stream.capabilities.http.transport.pool import Pool
from nyx_stream.capabilities.lease import Lease
from nyx_stream.capabilities.network import Network
from nyx_stream.errors import NetworkDenied, Revoked
from nyx_stream.guard import NarrowedGuard, RequestVerdict, SandboxGuard
from nyx_stream.policy import RequestRule, SandboxPolicy
from nyx_stream.policy.limits import Term, parse_terms

_DEFAULT_PORTS = {"http": 80, "https": 443}


Terms = Mapping[str, Term | None]


@dataclass(frozen=True, slots=True)
class Passage:
    """A gate as its client holds it: functions, and no attribute that leads to the guard or the pool."""

    forbid_text: Callable[[str, str, Callable[[], Any]], None]
    forbid: Callable[[str, Any, Callable[[], Any]], None]
    exchange: Callable[[Any], Awaitable[Any]]
    refuse_redirect: Callable[[Any, str, str], NoReturn]
    most_redirects: Callable[[], int]
    aclose: Callable[[], Awaitable[None]]
    turned: Callable[[LibraryAdapter], "Passage"]
    narrowed: Callable[[Sequence[RequestRule], Terms], "Passage"]
    watch: Callable[[Callable[[Revoked], None]], Callable[[], None]]
    """Has a function called when the lease ends, with the error; returns how to take that back."""


def read_narrowing(rules: Sequence[str], terms: Mapping[str, object]) -> tuple[Sequence[RequestRule], Terms]:
    """Returns the rules and terms that a client is to be narrowed to.

    Raises:
        PolicyError, ValueError: there is no rule, or a rule or a term does not parse.
    """
    if not rules:
        raise ValueError("a client is narrowed to one rule or more")
    return SandboxPolicy.locked_down().allow_request(*rules).request, parse_terms("http", terms)


class HttpGate:
    """Everything one plugin asks of the network by HTTP goes through here, whichever library it asks with."""

    def __init__(self, guard: SandboxGuard, lease: Lease, network: Network, *, above: "HttpGate | None" = None) -> None:
        self._guard = guard
        self._lease = lease
        self._keyring = Keyring()
        self._network = network
        # A narrowed gate uses the connections of the one above it: their number is a limit of the plugin.
        self._above = above
        self._pool: Pool = Pool(Dialler(guard, network), guard.limits.connections) if above is None else above._pool
        self._end_with_lease = lease.hold(self._pool.abort) if above is None else _nothing

    def passage(self, dialect: LibraryAdapter, *, owner: bool = True) -> Passage:
        """What a client of the dialect's library gets to see of this gate; only its owner closes the connections."""
        answers = ErrorMapper(self._guard, self._lease, dialect)

        def refuse_redirect(request: Any, location: str, reason: str) -> NoReturn:
            raise answers.redirect_denied(location, reason, request)

        async def leave() -> None:
            if owner:
                await self.aclose()

        return Passage(
            forbid_text=lambda method, url, request: self.forbid_text(answers, method, url, request),
            forbid=lambda method, url, request: self.forbid(answers, method, url, request),
            exchange=lambda request: self.exchange(answers, request),
            refuse_redirect=refuse_redirect,
            most_redirects=lambda: self._guard.limits.redirects,
            aclose=leave,
            turned=lambda dialect: self.passage(dialect, owner=False),
            narrowed=lambda rules, terms: self.narrowed(rules, terms).passage(dialect),
            watch=lambda told: self._lease.hold(lambda: told(self._lease.error())),
        )

    def narrowed(self, rules: Sequence[RequestRule], terms: Terms) -> "HttpGate":
        """A gate for less, on a lease below this one's.

        Raises:
            NetworkDenied: a rule speaks of more than passes here; audited.
            Revoked: the lease has ended.
        """
        self._lease.check("narrow", ", ".join(rule.text for rule in rules))
        for rule in rules:
            if not self._guard.holds(rule):
                decision = refusal("it is more than what is held")
                self._guard.record("http", "narrow", rule.text, decision)
                raise self._guard.denial(NetworkDenied, "http", "narrow", rule.text, decision)
        guard = NarrowedGuard(self._guard, request=rules)
        return HttpGate(guard, self._lease.child(terms), self._network, above=self)

    def forbid(self, answers: ErrorMapper, method: str, url: Any, request: Callable[[], Any]) -> None:
        """Raises the denial of a request that is not even built yet; what passes is decided again in `exchange`."""
        if not self._lease.ended:
            decision = self._guard.judge_request(method, url).decision
            if not decision.allowed:
                raise answers.denied(method, url, decision, request)

    def forbid_text(self, answers: ErrorMapper, method: str, url: str, request: Callable[[], Any]) -> None:
        """Raises the denial of a request whose URL is not even parsed yet, where its text says enough.

        Parsing costs more than everything else about a denial. What the guard cannot read as it stands is left to
        `forbid`.
        """
        verdict = None if self._lease.ended else self._guard.judge_plain(method, url)
        if verdict is not None and not verdict.decision.allowed:
            raise answers.denied(method, url, verdict.decision, request)

    async def exchange(self, answers: ErrorMapper, request: Any) -> Any:
        """Sends a request of the dialect's library and returns its response, the body unread.

        Raises the dialect's denial, revocation, limit or library errors, each with `request` set.
        """
        started = time.perf_counter()
        answers.admit(request)
        exchange = self._admit(answers, request)
        return await InFlight(self._pool, self._lease, answers, request, exchange).launch(started)

    async def aclose(self) -> None:
        """Closes every connection of the plugin."""
        self._end_with_lease()
        if self._above is not None:
            self._lease.revoke("its client was closed")
            return
        await self._pool.aclose()

    def _admit(self, answers: ErrorMapper, request: Any) -> Exchange:
        try:
            taken = snapshot(request, answers.dialect)
        except BadRequest as error:
            raise answers.denied("request", "", refusal(str(error)), request) from error
        verdict = self._guard.judge_request(taken.method, taken.url)
        decision = verdict.decision
        if decision.allowed and verdict.scheme not in _DEFAULT_PORTS:
            decision = refusal(f"{verdict.scheme} needs an upgrade, which no rule grants")
        if not decision.allowed:
            raise answers.denied(taken.method, taken.url, decision, request)
        limits, host = self._guard.limits, _host_header(verdict)
        try:
            raw = headers.checked(taken.headers, host, limits.header_bytes)
        except headers.BadHeaders as error:
            raise answers.denied(taken.method, taken.url, refusal(str(error)), request) from error
        decision = decision.use()
        if not decision.allowed:
            raise answers.denied(taken.method, taken.url, decision, request)
        answers.spend(request)
        secrets: tuple[bytes, ...] = ()
        if verdict.credentials:
            try:
                secrets = add_credentials(raw, verdict.credentials, self._keyring)
            except Unresolved as error:
                raise answers.denied(taken.method, taken.url, refusal(str(error)), request) from error
        target = f"{verdict.scheme}://{host.decode('ascii')}{verdict.target.decode('ascii')}"
        self._guard.record("http", verdict.method, target, decision)
        return Exchange(
            Origin(verdict.scheme, verdict.host, verdict.port),
            Message(verdict.method, verdict.target, raw),
            taken.body,
            taken.timeouts,
            Bounds(limits.request_bytes, limits.response_bytes, limits.header_bytes, limits.request_timeout),
            self._lease,
            secrets,
        )


def _nothing() -> None:
    """A narrowed gate ends with the requests that are under way in it; they are held by themselves."""


def _host_header(verdict: RequestVerdict) -> bytes:
    host = f"[{verdict.host}]" if ":" in verdict.host else verdict.host
    default = verdict.port == _DEFAULT_PORTS[verdict.scheme]
    return (host if default else f"{host}:{verdict.port}").encode("ascii")
