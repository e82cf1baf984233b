"""The first gate: the one seam that first requests, redirect hops, auth flows, `send` and `stream` all pass.

Takes a snapshot of the plugin's request, asks the guard, builds a fresh request from the canonical parts of the
verdict, and hands back a response from which no attribute leads to the pool. Knows no client class.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import httpcore2

from nyx_stream.capabilities.http import headers
from nyx_stream.capabilities.http.dialect import Dialect
from nyx_stream.capabilities.http.dialling import Dialler, netloc
from nyx_stream.capabilities.http.exchange import Bounds, Exchange, RawHeaders
from nyx_stream.capabilities.http.flight import Flight
from nyx_stream.capabilities.http.network import Network
from nyx_stream.capabilities.http.pool import Pool
from nyx_stream.capabilities.http.snapshot import BadRequest, Snapshot, snapshot
from nyx_stream.capabilities.http.verdicts import DialRefused, Exceeded, Refused, refusal
from nyx_stream.capabilities.lease import Lease
from nyx_stream.guard import Decision, RequestVerdict, SandboxGuard

_REMEMBERED = 256

_PLAIN_PORTS = {"http": 80, "https": 443}
_plain_origin = re.compile(r"(https?)://([a-z0-9.-]{1,253})(?::([0-9]{1,5}))?(?=[/?#]|\Z)").match


@dataclass(frozen=True, slots=True)
class Passage:
    """A gate as its client holds it: functions, and no attribute that leads to the guard or the pool."""

    forbid_text: Callable[[str, str, Callable[[], Any]], None]
    forbid: Callable[[str, Any, Callable[[], Any]], None]
    exchange: Callable[[Any], Awaitable[Any]]
    refuse_redirect: Callable[[Any, str, str], NoReturn]
    most_redirects: Callable[[], int]
    aclose: Callable[[], Awaitable[None]]
    turned: Callable[[Dialect], "Passage"]


class Gate:
    """Everything one plugin asks of the network by HTTP goes through here."""

    def __init__(self, guard: SandboxGuard, lease: Lease, network: Network) -> None:
        self._guard = guard
        self._lease = lease
        self._pool = Pool(Dialler(guard, network), guard.policy.limits.connections)
        # Origins that some rule named when they were first asked for; it only saves asking that again.
        self._named: set[str] = set()
        self._end_with_lease = lease.hold(self._pool.abort)

    @property
    def plugin(self) -> str | None:
        """Id of the plugin behind it."""
        return self._guard.plugin

    def passage(self, dialect: Dialect, *, owner: bool = True) -> "Passage":
        """What a client of the dialect's library gets to see of this gate; only its owner closes the connections."""

        async def leave() -> None:
            if owner:
                await self.aclose()

        return Passage(
            forbid_text=lambda method, url, request: self.forbid_text(dialect, method, url, request),
            forbid=lambda method, url, request: self.forbid(dialect, method, url, request),
            exchange=lambda request: self.exchange(dialect, request),
            refuse_redirect=lambda request, location, reason: self.refuse_redirect(dialect, request, location, reason),
            most_redirects=lambda: self._guard.policy.limits.redirects,
            aclose=leave,
            turned=lambda dialect: self.passage(dialect, owner=False),
        )

    def forbid(self, dialect: Dialect, method: str, url: Any, request: Callable[[], Any]) -> None:
        """Raises the denial of a request that is not even built yet; what passes is decided again in `exchange`."""
        if not self._lease.ended:
            decision = self._guard.judge_request(method, url).decision
            if not decision.allowed:
                raise self._denied(dialect, method, url, decision, request)

    def forbid_text(self, dialect: Dialect, method: str, url: str, request: Callable[[], Any]) -> None:
        """Raises the denial of a request whose URL is not even parsed yet, if no rule so much as names its origin.

        Parsing costs more than everything else about a denial. A text that is not plainly `http(s)://host[:port]`, and
        an origin that some rule names, are left to `forbid`.
        """
        plain = _plain_origin(url)
        if plain is None or plain[0] in self._named or self._lease.ended:
            return
        scheme, host, port = plain.groups()
        decision = self._guard.judge_origin(host, int(port) if port else _PLAIN_PORTS[scheme])
        if not decision.allowed:
            raise self._denied(dialect, method, url, decision, request)
        if len(self._named) >= _REMEMBERED:
            self._named.clear()
        self._named.add(plain[0])

    async def exchange(self, dialect: Dialect, request: Any) -> Any:
        """Sends a request of the dialect's library and returns its response, the body unread.

        Raises the dialect's denial, revocation, limit or library errors, each with `request` set.
        """
        started = time.perf_counter()
        self.check(dialect, request)
        taken, verdict, raw = self._admit(dialect, request)
        limits = self._guard.policy.limits
        bounds = Bounds(limits.request_bytes, limits.response_bytes, limits.header_bytes, limits.request_timeout)
        exchange = Exchange(taken.body, taken.timeouts, bounds)
        flight = Flight(self, dialect, request, exchange)
        flight.release = self._lease.hold(flight.end)
        try:
            async with asyncio.timeout(None) as flight.waiting:
                pooled = await self._pool.handle_async_request(_core_request(verdict, raw, exchange))
        except BaseException as error:
            flight.release()
            self.explain(dialect, request, error)
            raise
        return flight.land(pooled, started)

    def refuse_redirect(self, dialect: Dialect, request: Any, location: str, reason: str) -> NoReturn:
        """Raises the denial of a redirect whose Location may not be followed."""
        decision = refusal(reason)
        denial: Any = self._guard.denial(dialect.denied, "http", "redirect", location, decision)
        denial.request = request
        self._guard.record("http", "redirect", location, decision)
        raise denial

    async def aclose(self) -> None:
        """Closes every connection of the plugin."""
        self._end_with_lease()
        await self._pool.aclose()

    def check(self, dialect: Dialect, request: Any) -> None:
        """Raises the dialect's `Revoked` once the lease has ended."""
        if self._lease.ended:
            raise self._revoked(dialect, request)

    def explain(self, dialect: Dialect, request: Any, error: BaseException) -> None:
        """Raises the dialect's error for one of the inner parts; returns if `error` is none of theirs."""
        if isinstance(error, DialRefused):
            raise self._dial_denied(dialect, error, request) from error
        if isinstance(error, Refused):
            raise self._denied(dialect, request.method, request.url, error.decision, request) from error
        if isinstance(error, Exceeded):
            raise self._exceeded(dialect, request, error) from error
        if isinstance(error, Exception):
            if self._lease.ended and not isinstance(error, dialect.revoked):
                raise self._revoked(dialect, request) from error
            fault: Any = dialect.fault(error)
            if fault is not None:
                fault.request = request
                raise fault from error

    def _admit(self, dialect: Dialect, request: Any) -> tuple[Snapshot, RequestVerdict, RawHeaders]:
        try:
            taken = snapshot(request, dialect)
        except BadRequest as error:
            raise self._denied(dialect, "request", "", refusal(str(error)), request) from error
        verdict = self._guard.judge_request(taken.method, taken.url)
        decision = verdict.decision
        if decision.allowed and verdict.scheme not in _PLAIN_PORTS:
            decision = refusal(f"{verdict.scheme} needs an upgrade, which no rule grants")
        if not decision.allowed:
            raise self._denied(dialect, taken.method, taken.url, decision, request)
        try:
            raw = headers.checked(taken.headers, _host_header(verdict), self._guard.policy.limits.header_bytes)
        except headers.BadHeaders as error:
            raise self._denied(dialect, taken.method, taken.url, refusal(str(error)), request) from error
        self._guard.record("http", verdict.method, _target(verdict), decision)
        return taken, verdict, raw

    def _denied(self, dialect: Dialect, method: str, url: Any, decision: Decision, request: Any) -> Exception:
        denial: Any = self._guard.request_error(method, _without_password(url, dialect), decision, dialect.denied)
        denial.request = request
        self._guard.record(denial.capability, denial.action, denial.target, decision)
        return denial  # type: ignore[no-any-return]  # a class of the dialect

    def _dial_denied(self, dialect: Dialect, error: DialRefused, request: Any) -> Exception:
        denial: Any = self._guard.connect_error(error.host, error.port, error.decision, dialect.denied)
        denial.request = request
        target = f"{netloc(error.host, error.port)} at {error.at}"
        self._guard.record(denial.capability, denial.action, target, error.decision)
        return denial  # type: ignore[no-any-return]  # a class of the dialect

    def _revoked(self, dialect: Dialect, request: Any) -> Exception:
        error = self._lease.error("request", str(getattr(request, "url", "")))
        revoked: Any = dialect.revoked(
            plugin=error.plugin,
            capability=error.capability,
            action=error.action,
            target=error.target,
            rule=error.rule,
            reason=error.reason,
        )
        revoked.request = request
        return revoked  # type: ignore[no-any-return]  # a class of the dialect

    def _exceeded(self, dialect: Dialect, request: Any, error: Exceeded) -> Exception:
        exceeded: Any = dialect.exceeded(
            plugin=self._guard.plugin, limit=error.limit, allowed=error.allowed, detail=error.detail
        )
        exceeded.request = request
        return exceeded  # type: ignore[no-any-return]  # a class of the dialect


def _core_request(verdict: RequestVerdict, raw: RawHeaders, exchange: Exchange) -> httpcore2.Request:
    url = httpcore2.URL(scheme=verdict.scheme, host=verdict.host, port=verdict.port, target=verdict.target)
    waits = {"pool": exchange.wait(exchange.timeouts.pool)}
    return httpcore2.Request(verdict.method, url, headers=raw, extensions={"exchange": exchange, "timeout": waits})


def _without_password(url: Any, dialect: Dialect) -> Any:
    # Errors and audit events are read by others than the plugin.
    if type(url) is dialect.library.URL and url.userinfo:
        return str(url.copy_with(userinfo=b"[secure]"))
    return url


def _host_header(verdict: RequestVerdict) -> bytes:
    host = f"[{verdict.host}]" if ":" in verdict.host else verdict.host
    plain = verdict.port == _PLAIN_PORTS.get(verdict.scheme)
    return (host if plain else f"{host}:{verdict.port}").encode("ascii")


def _target(verdict: RequestVerdict) -> str:
    return f"{verdict.scheme}://{_host_header(verdict).decode('ascii')}{verdict.target.decode('ascii')}"
