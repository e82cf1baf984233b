"""The client's own half: what httpx and httpx2 clients do between a call and their transport, with the gate pinned.

Mixed in before the library's AsyncClient. The gate lives in a slot that no attribute of the library shadows: whatever
is assigned to `_transport`, `_mounts` or `_transport_for_url` routes nothing, and the slot's memory layout makes
CPython refuse the library's class as a new `__class__`. Redirects follow stricter rules than the library's.
"""

from types import TracebackType
from typing import Any, ClassVar, Self

from nyx_stream.capabilities.http.headers import KEPT_ACROSS_ORIGINS
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter
from nyx_stream.capabilities.http.redirects import why_not
from nyx_stream.capabilities.http.service import HttpGate, Passage, read_narrowing
from nyx_stream.capabilities.lease import Lease
from nyx_stream.capabilities.network import NetworkBackend
from nyx_stream.guard import SandboxGuard

# Each library's client has its own types for the same methods; the mixin is written against what they share.
_Client: Any = object

_CHOICES = frozenset(
    {"auth", "params", "headers", "cookies", "timeout", "follow_redirects", "max_redirects", "event_hooks", "base_url",
     "default_encoding"}
)  # fmt: skip
"""What may be chosen about a client. Everything else of the library's constructor is the host's: routes and trust."""

_UNSET: Any = object()

_REMEMBERED = 256
_LONGEST_REMEMBERED = 1024


class ClientMixin(_Client):  # type: ignore[misc]  # the base is known where it is mixed in
    """An AsyncClient whose every request passes the gate. Built by the host, held by one plugin."""

    __slots__ = ("_gate", "_parsed")

    dialect: ClassVar[LibraryAdapter]
    _state: Any

    def __init__(
        self, guard: SandboxGuard, lease: Lease, *, network: NetworkBackend | None = None, **choices: Any
    ) -> None:
        _check_choices(choices)
        self._enter(HttpGate(guard, lease, network or NetworkBackend()).passage(self.dialect), choices)

    @classmethod
    def through(cls, passage: Passage, **choices: Any) -> Self:
        """A client that shares a gate with another one, under the same lease, in the same pool."""
        _check_choices(choices)
        client = cls.__new__(cls)
        client._enter(passage, choices)
        return client

    def _enter(self, passage: Passage, choices: dict[str, Any]) -> None:
        self._gate: Passage = passage
        self._parsed: dict[str, Any] = {}
        transport = self.dialect.transport(passage.exchange, passage.aclose)
        super().__init__(transport=transport, trust_env=False, **choices)

    def narrow(self, *rules: str, **terms: object) -> Self:
        """A client for less, to be handed on: `self.http.narrow("GET https://api.met.no/v1/**", ttl="60s")`.

        It sends what both its rules and this client's allow, now and later. It ends with this one, or by itself when it
        is closed or its terms are over (see `LeaseTerms`); what it spends is spent here too. It has nothing of this
        client's headers, cookies or credentials, and can be narrowed further.

        Raises:
            NetworkDenied: a rule speaks of more than this client may send; audited.
            PolicyError, ValueError: a rule or a term does not parse, or there is no rule.
            Revoked: this client was revoked.
            LimitExceeded: level `process` only: more is narrowed than the host keeps for one plugin.
        """
        return self.through(self._gate.narrowed(*read_narrowing(rules, terms)))

    async def request(self, method: str, url: Any, **options: Any) -> Any:
        """Builds and sends a request, as the library does; a denied one is refused before it is built."""
        if type(method) is not str:
            return await super().request(method, url, **options)
        verb = method.upper()

        def refused() -> Any:
            return self.dialect.library.Request(verb, self._merge_url(url))

        merged = self._parsed.get(url) if type(url) is str else None
        if merged is None:
            if type(url) is str:
                self._gate.forbid_text(verb, url, refused)
            merged = self._merge(url)
        self._gate.forbid(verb, merged, refused)
        return await super().request(method, merged, **options)

    async def send(
        self, request: Any, *, stream: bool = False, auth: Any = _UNSET, follow_redirects: Any = _UNSET
    ) -> Any:
        """Sends a request, as the library does: with the client's auth and redirects unless told otherwise."""
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        library = self.dialect.library
        self._state = type(self._state).OPENED
        if follow_redirects is _UNSET or follow_redirects is library.USE_CLIENT_DEFAULT:
            follow_redirects = self.follow_redirects
        self._set_timeout(request)
        flow = self._build_request_auth(request, library.USE_CLIENT_DEFAULT if auth is _UNSET else auth)
        if type(flow) is library.Auth:
            # The library's auth that does nothing; its generator would cost more than the guard.
            response = await self._send_handling_redirects(request, follow_redirects, [])
        else:
            response = await self._send_handling_auth(request, flow, follow_redirects, [])
        if not stream:
            try:
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
        return response

    async def aclose(self) -> None:
        """Closes the client and every connection of its plugin."""
        if not self.is_closed:
            self._state = type(self._state).CLOSED
            await self._gate.aclose()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def _merge(self, url: Any) -> Any:
        # Parsing costs as much as deciding, and most plugins ask for the same few URLs. Those that are relative depend
        # on `base_url` and are not remembered.
        merged = self._merge_url(url)
        if type(url) is str and len(url) < _LONGEST_REMEMBERED and url.startswith(("http://", "https://")):
            if len(self._parsed) >= _REMEMBERED:
                self._parsed.clear()
            self._parsed[url] = merged
        return merged

    async def _send_handling_redirects(self, request: Any, follow_redirects: bool, history: list[Any]) -> Any:
        most = min(self.max_redirects, self._gate.most_redirects())
        while True:
            if len(history) > most:
                raise self.dialect.library.TooManyRedirects("Exceeded maximum allowed redirects.", request=request)
            for hook in self._event_hooks["request"]:
                await hook(request)
            response = await self._send_single_request(request)
            try:
                for hook in self._event_hooks["response"]:
                    await hook(response)
                response.history = list(history)
                if not response.has_redirect_location:
                    return response
                if not follow_redirects:
                    response.next_request = self._next_request(request, response)
                    return response
                request = self._build_redirect_request(request, response)
                history = [*history, response]
                await response.aread()
            except BaseException:
                await response.aclose()
                raise

    async def _send_single_request(self, request: Any) -> Any:
        response = await self._gate.exchange(request)
        if "set-cookie" in response.headers:
            self.cookies.extract_cookies(response)
        response.default_encoding = self._default_encoding
        return response

    def _next_request(self, request: Any, response: Any) -> Any:
        """What following the redirect would send; `None` if it may not be followed."""
        if why_not(response.headers["Location"], request.url.scheme) is not None:
            return None
        try:
            return self._build_redirect_request(request, response)
        except self.dialect.library.RemoteProtocolError:
            return None

    def _build_redirect_request(self, request: Any, response: Any) -> Any:
        location = response.headers["Location"]
        reason = why_not(location, request.url.scheme)
        if reason is not None:
            self._gate.refuse_redirect(request, location, reason)
        library = self.dialect.library
        try:
            following: Any = super()._build_redirect_request(request, response)
        except (library.InvalidURL, ValueError) as error:
            message = f"Invalid URL in location header: {error}."
            raise library.RemoteProtocolError(message, request=request) from error
        if _origin(following.url) != _origin(request.url):
            self._leave_credentials(following)
        return following

    def _leave_credentials(self, following: Any) -> None:
        for name in list(following.headers):
            if name not in KEPT_ACROSS_ORIGINS:
                del following.headers[name]
        # A cookie without a domain was set by the plugin for every host; only the new host's own go there.
        cookies = self.dialect.library.Cookies()
        for cookie in self.cookies.jar:
            if cookie.domain:
                cookies.jar.set_cookie(cookie)
        cookies.set_cookie_header(following)


def _check_choices(choices: dict[str, Any]) -> None:
    refused = choices.keys() - _CHOICES
    if refused:
        raise TypeError(f"not to be chosen about a guarded client: {', '.join(sorted(refused))}")


def _origin(url: Any) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def passage_of(client: ClientMixin) -> Passage:
    """The gate behind a client, for the framework: requests that are built already pass it one hop at a time."""
    return client._gate
