"""The HTTP service itself: decides on a request, adds the host's credentials, sends it, and accounts for its response.

Every HTTP request of a plugin passes `LocalHttpService.send`: first requests, redirects and auth flows, from both
libraries and from every isolation level. What is sent is built from the canonical parts of the guard's verdict. Every
refusal is audited once, here.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING

from nyx_stream.capabilities.http.credentials import Keyring, add_credentials, conceal, conceal_error
from nyx_stream.capabilities.http.exchange import Exchange, RequestRefused
from nyx_stream.capabilities.http.headers import check_headers, why_not_follow
from nyx_stream.capabilities.http.service import FaultKind, HttpFault, HttpLimits, HttpReply, HttpRequest, Sink, Terms
from nyx_stream.capabilities.http.transport.pool import Pool
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.capabilities.network import Dialer, DialRefused, NetworkBackend, netloc
from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked
from nyx_stream.guard import Decision, NarrowedGuard, RequestVerdict, SandboxGuard
from nyx_stream.policy import Limits, RequestRule

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.transport.connection import HttpConnection

_DEFAULT_PORTS = {"http": 80, "https": 443}
_USERINFO = re.compile(r"([^/?#]*//)[^/?#]*@")


class LocalHttpService:
    """HTTP for one plugin: an `HttpService` that sends by itself.

    The guard decides on each request, and on each connection again. The end of the lease ends all of them.
    """

    def __init__(
        self,
        guard: SandboxGuard,
        lease: Lease,
        network: NetworkBackend | None = None,
        *,
        parent: "LocalHttpService | None" = None,
    ) -> None:
        self.plugin = guard.plugin
        self._guard = guard
        self._lease = lease
        self._keyring = Keyring()
        # A narrowed service uses its parent's connections: their number is a limit of the plugin.
        self._parent = parent
        self._pool: Pool
        self._unhold: Callable[[], None] | None = None
        if parent is not None:
            self._pool = parent._pool
        else:
            self._pool = Pool(Dialer(guard, network or NetworkBackend()), guard.limits.connections)
            self._unhold = lease.hold(self._pool.abort)

    @property
    def limits(self) -> HttpLimits:
        """The limits in force that a worker must keep."""
        return _limits(self._guard.limits)

    async def send(self, request: HttpRequest) -> "HttpReply[ResponseBody]":
        if self._lease.ended:
            raise self._refused(request)
        try:
            exchange, secrets = self._admit(request)
        except RequestRefused as refused:
            raise self._denied(request.method, request.url, _refusal(str(refused))) from refused
        except Spent as spent:
            raise self._refused(request, spent.reason) from spent
        body = ResponseBody(self, request, exchange, secrets)
        try:
            async with asyncio.timeout(None) as body.waiting:
                body.connection, head = await self._pool.send(exchange)
        except BaseException as error:
            body.fail(error)
            raise
        finally:
            body.waiting = None
        headers, reason = head.headers, head.reason
        if secrets:
            headers = [(conceal(name, secrets), conceal(value, secrets)) for name, value in headers]
            reason = conceal(reason, secrets)
        return HttpReply(head.status, head.version, reason, headers, body, _limits(exchange.limits))

    def early_denial(self, method: str, url: str, kind: type[NetworkDenied] = NetworkDenied) -> NetworkDenied | None:
        """See `HttpService.early_denial`: a denial that costs no parsing, where every reader takes `url` as it is."""
        verdict = None if self._lease.ended else self._guard.judge_plain(method, url)
        if verdict is None or verdict.decision.allowed:
            return None
        return self._denied(method, url, verdict.decision, kind)

    async def refuse_redirect(self, scheme: str, location: str) -> NetworkDenied:
        """See `HttpService.refuse_redirect`. Raises ValueError if the redirect may be followed."""
        reason = why_not_follow(location, scheme)
        if reason is None:
            raise ValueError("the redirect may be followed")
        decision = _refusal(reason)
        self._guard.record("http", "redirect", location, decision)
        return self._guard.denial(NetworkDenied, "http", "redirect", location, decision)

    def narrow(self, rules: Sequence[RequestRule], terms: Terms) -> "LocalHttpService":
        self._lease.check("narrow", ", ".join(rule.text for rule in rules))
        for rule in rules:
            if not self._guard.holds(rule):
                decision = _refusal("it is more than what is held")
                self._guard.record("http", "narrow", rule.text, decision)
                raise self._guard.denial(NetworkDenied, "http", "narrow", rule.text, decision)
        return LocalHttpService(NarrowedGuard(self._guard, request=rules), self._lease.child(terms), parent=self)

    def watch(self, ended: Callable[[Revoked], None]) -> None:
        """Has `ended` called with the error when the lease ends. Raises `Revoked` if it has ended already."""
        self._lease.hold(lambda: ended(self._lease.error()))

    async def aclose(self) -> None:
        """Closes every connection of the plugin; of a narrowed service, ends its lease only."""
        if self._unhold is None:
            self._lease.revoke("its client was closed")
            return
        self._unhold()
        await self._pool.aclose()

    def _admit(self, request: HttpRequest) -> tuple[Exchange, tuple[bytes, ...]]:
        """Decides; returns what to send and the secrets in it. Raises `NetworkDenied`, `RequestRefused` and `Spent`."""
        if request.flaw is not None:
            raise RequestRefused(request.flaw)
        guard = self._guard
        verdict = guard.judge_request(request.method, request.url)
        decision = verdict.decision
        if not decision.allowed:
            raise self._denied(request.method, request.url, decision)
        if verdict.scheme not in _DEFAULT_PORTS:
            raise RequestRefused(f"{verdict.scheme} needs an upgrade, which no rule grants")
        limits, host = guard.limits, _netloc(verdict)
        headers = check_headers(request.headers, host.encode("ascii"), limits.header_bytes)
        if type(decision) is not Decision:  # an approval may be used up by being taken
            decision = decision.use()
            if not decision.allowed:
                raise self._denied(request.method, request.url, decision)
        self._lease.spend("requests")
        secrets: tuple[bytes, ...] = ()
        if verdict.credentials:
            secrets = add_credentials(headers, verdict.credentials, self._keyring)
        guard.record("http", verdict.method, f"{verdict.scheme}://{host}{verdict.target.decode('ascii')}", decision)
        return Exchange(verdict, headers, request.body, request.timeouts, limits, self._lease), secrets

    def _denied(
        self, method: str, url: str, decision: Decision, kind: type[NetworkDenied] = NetworkDenied
    ) -> NetworkDenied:
        """Returns the audited error for a request that isn't granted."""
        denial = self._guard.request_error(method, _without_password(url), decision, kind)
        self._guard.record(denial.capability, denial.action, denial.target, decision)
        return denial

    def _dial_denied(self, refused: DialRefused) -> NetworkDenied:
        target = f"{netloc(refused.host, refused.port)} at {refused.at}"
        if refused.at == refused.host:
            denial = self._guard.connect_error(refused.host, refused.port, refused.decision)
        else:  # a rule for the name exists: a hint at one would not help with the address that was refused
            denial = self._guard.denial(NetworkDenied, "connect", "connect", target, refused.decision)
        self._guard.record(denial.capability, denial.action, target, refused.decision)
        return denial

    def _refused(self, request: HttpRequest, reason: str | None = None) -> Revoked:
        """Returns the audited error for a request that the end of the lease, or of a budget, stops."""
        revoked = self._revoked(request, reason)
        self._guard.record("http", request.method, revoked.target, _refusal(revoked.reason))
        return revoked

    def _revoked(self, request: HttpRequest, reason: str | None = None) -> Revoked:
        return self._lease.error("request", _without_password(request.url), reason)

    def _explain(self, request: HttpRequest, error: BaseException) -> None:
        """Raises the service's own error for one that ended a request; returns if it is to be raised as it is."""
        if isinstance(error, DialRefused):
            raise self._dial_denied(error) from error
        if isinstance(error, RequestRefused):
            raise self._denied(request.method, request.url, _refusal(str(error))) from error
        if isinstance(error, Spent):
            raise self._refused(request, error.reason) from error
        if isinstance(error, Exception) and self._lease.ended and not isinstance(error, LimitExceeded | Revoked):
            raise self._revoked(request) from error


class ResponseBody:
    """One request on its way, then the body of its response. Registered with the lease until the body is over."""

    __slots__ = (
        "_exchange", "_loop", "_release", "_request", "_secrets", "_service", "complete", "connection", "waiting",
    )  # fmt: skip

    def __init__(
        self, service: LocalHttpService, request: HttpRequest, exchange: Exchange, secrets: tuple[bytes, ...]
    ) -> None:
        self._service = service
        self._request = request
        self._exchange = exchange
        self._secrets = secrets
        self.connection: HttpConnection | None = None
        self.waiting: asyncio.Timeout | None = None
        """What the task that sends or relays waits under, so that the lease can wake it."""
        self._loop = asyncio.get_running_loop()
        self.complete = False
        """Whether nothing is left to read: the body was read to its end, or given up."""
        self._release = service._lease.hold(self._end, busy=True)

    async def read(self) -> bytes | None:
        return await self.read_all(1) or None

    async def read_all(self, size: float = inf) -> bytes:
        """Returns the rest of the body, or `size` bytes of it or a little more. `complete` says which."""
        # Once it is given back, the connection carries other exchanges: their bytes are not ours to read.
        if self.complete or self.connection is None:
            return b""
        try:
            if size > 1:
                self._exchange.check_declared()
            pieces, over = await self.connection.receive(self._exchange, size)
            # A body that ends with its connection would look complete after the lease closed it.
            if self._service._lease.ended:
                raise self._service._revoked(self._request)
        except BaseException as error:
            self.fail(error)
            raise
        if over:
            self._give_back()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def relay(self, sink: Sink) -> None:
        """Passes the rest of the body on to `sink` as it arrives, until it is complete or the lease ends."""
        if self.complete or self.connection is None:
            return
        try:
            async with self._until_deadline():
                await self.connection.relay(self._exchange, _CheckedSink(sink, self._check))
            self._check()
        except BaseException as error:
            self.fail(error)
            raise
        self._give_back()

    async def aclose(self) -> None:
        self._give_back()

    def _end(self) -> None:
        # The lease ends: an open connection is closed, a task that waits for a response or for a sink wakes at once.
        if self.connection is not None:
            self.connection.abort()
        if self.waiting is not None and not self.waiting.expired():
            self.waiting.reschedule(self._loop.time())

    def _check(self) -> None:
        if self._service._lease.ended:
            raise self._service._revoked(self._request)

    @asynccontextmanager
    async def _until_deadline(self) -> AsyncIterator[None]:
        """Lets the lease interrupt the block. Raises READ_TIMEOUT at the deadline, also for a slow sink."""
        try:
            async with asyncio.timeout_at(self._exchange.deadline) as self.waiting:
                yield
        except TimeoutError as error:
            if self.waiting is None or not self.waiting.expired():
                raise  # the sink raised it
            raise HttpFault(FaultKind.READ_TIMEOUT, "timed out") from error
        finally:
            self.waiting = None

    def fail(self, error: BaseException) -> None:
        """Ends the request because of an error; raises the service's own error for it, if it has one."""
        self._give_back()
        if self._secrets:
            conceal_error(error, self._secrets)
        self._service._explain(self._request, error)

    def _give_back(self) -> None:
        if not self.complete:
            self.complete = True
            self._release()
            if self.connection is not None:
                self._service._pool.give_back(self.connection)


class _CheckedSink:
    """A sink that takes nothing once the lease has ended."""

    __slots__ = ("_check", "_sink", "drain")

    def __init__(self, sink: Sink, check: Callable[[], None]) -> None:
        self._sink = sink
        self._check = check
        self.drain = sink.drain

    def offer(self, chunk: bytes | memoryview) -> bool:
        self._check()
        return self._sink.offer(chunk)


def _refusal(reason: str) -> Decision:
    """Returns a decision of the client itself, where no rule of a policy could allow the request."""
    return Decision(False, None, reason)


def _limits(limits: Limits) -> HttpLimits:
    return HttpLimits(limits.redirects, limits.connections, limits.response_bytes)


def _netloc(verdict: RequestVerdict) -> str:
    """Returns host and port as the Host header has them: without the scheme's default port."""
    host = f"[{verdict.host}]" if ":" in verdict.host else verdict.host
    return host if verdict.port == _DEFAULT_PORTS[verdict.scheme] else f"{host}:{verdict.port}"


def _without_password(url: str) -> str:
    # Errors and audit events are read by others than the plugin.
    return _USERINFO.sub(r"\1[secure]@", url, count=1) if "@" in url else url
