"""What makes a library's client a guarded one: the mixin of `GuardedClient` and `GuardedHttpx2Client`.

Theory of operation
-------------------
`GuardedClientMixin` comes before the library's client class in the MRO and replaces the steps between a call and the
transport: redirects by stricter rules, cookies, errors. The service behind a client is in a slot whose descriptor isn't
on the class but in `SERVICE`. So an assignment to `_transport`, `_mounts` or `_transport_for_url` changes no route, no
attribute leads to the guard, and the slot makes CPython refuse the library's class as a new `__class__`.

`LibraryAdapter` has everything that differs between httpx and httpx2.
"""

from contextlib import suppress
from contextvars import ContextVar
from typing import Any, ClassVar, Self

from nyx_stream.capabilities.http.headers import KEPT_ACROSS_ORIGINS, why_not_follow
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter, hidden_slot
from nyx_stream.capabilities.http.service import HttpService, parse_narrowing

# Each library's client has its own types for the same methods; the mixin is written against what they share.
_Client: Any = object

_CHOICES = frozenset(
    {"auth", "params", "headers", "cookies", "timeout", "follow_redirects", "max_redirects", "event_hooks", "base_url",
     "default_encoding"}
)  # fmt: skip
"""Options that a plugin may choose. All others of the library's constructor concern routes and trust: the host's."""

_UNSET: Any = object()

_MAX_CACHED_URLS = 256
_MAX_CACHED_LENGTH = 1024

_whole_body: ContextVar[bool] = ContextVar("nyx_whole_body", default=False)
"""Whether the caller of the request under way will read its whole response body."""


class GuardedClientMixin(_Client):  # type: ignore[misc]  # the base is known where it is mixed in
    """An AsyncClient whose every request is sent by an `HttpService`.

    Args:
        service: decides on every request and sends it.
        shares_service: whether another client uses the service too, so that closing this one doesn't close it.
        choices: options of the library's client that concern neither route, trust nor pool.
    """

    __slots__ = ("_service", "_shares_service", "_urls")

    adapter: ClassVar[LibraryAdapter]
    _state: Any

    def __init__(self, service: HttpService, *, shares_service: bool = False, **choices: Any) -> None:
        refused = choices.keys() - _CHOICES
        if refused:
            raise TypeError(f"a guarded client does not accept these options: {', '.join(sorted(refused))}")
        SERVICE.__set__(self, service)
        self._urls: dict[str, Any] = {}
        self._shares_service = shares_service
        super().__init__(transport=self.adapter.transport(service), trust_env=False, **choices)

    def narrow(self, *rules: str, **terms: object) -> Self:
        """Returns a client for less, to be handed on: `self.http.narrow("GET https://api.met.no/v1/**", ttl="60s")`.

        It sends what both its rules and this client's allow, now and later. It ends with this one, and when it
        is closed or its terms are over (see `LeaseTerms`); what it spends is spent here too. It has none of this
        client's headers, cookies or credentials, and can be narrowed further.

        Raises:
            NetworkDenied: a rule covers more than this client may send; audited.
            PolicyError, ValueError: a rule or a term doesn't parse, or `rules` is empty.
            Revoked: this client was revoked.
            LimitExceeded: level `process` only: the host keeps no more narrowed clients for one plugin.
        """
        return type(self)(SERVICE.__get__(self).narrow(*parse_narrowing(rules, terms)))

    async def request(self, method: str, url: Any, **options: Any) -> Any:
        """Builds and sends a request, as the library does. A denied one is refused before it is built, if possible."""
        if type(method) is str and type(url) is str:
            url = self._urls.get(url) or self._parse(method.upper(), url)
        return await super().request(method, url, **options)

    async def send(
        self, request: Any, *, stream: bool = False, auth: Any = _UNSET, follow_redirects: Any = _UNSET
    ) -> Any:
        """Sends a request, as the library does: with the client's auth and redirects unless given others."""
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        library = self.adapter.library
        self._state = type(self._state).OPENED
        if follow_redirects is _UNSET or follow_redirects is library.USE_CLIENT_DEFAULT:
            follow_redirects = self.follow_redirects
        self._set_timeout(request)
        flow = self._build_request_auth(request, library.USE_CLIENT_DEFAULT if auth is _UNSET else auth)
        token = _whole_body.set(not stream)
        try:
            if type(flow) is library.Auth:
                # The library's auth that does nothing; its generator would cost more than the guard.
                response = await self._send_handling_redirects(request, follow_redirects, [])
            else:
                response = await self._send_handling_auth(request, flow, follow_redirects, [])
        finally:
            _whole_body.reset(token)
        if not stream:
            try:
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
        return response

    async def aclose(self) -> None:
        """Closes the client, and every connection of its plugin unless it shares its service."""
        if not self.is_closed:
            self._state = type(self._state).CLOSED
            if not self._shares_service:
                await SERVICE.__get__(self).aclose()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _parse(self, method: str, text: str) -> Any:
        """Returns the URL of a request, parsed and merged with `base_url`. Raises its denial if the text shows it."""
        denial: Any = SERVICE.__get__(self).early_denial(method, text, self.adapter.denied)
        if denial is not None:
            denial.request = lambda: self.adapter.library.Request(method, self._merge_url(text))
            raise denial
        url = self._merge_url(text)
        # Parsing costs as much as deciding, and most plugins request the same few URLs. Relative ones depend on
        # `base_url` and are not cached.
        if len(text) < _MAX_CACHED_LENGTH and text.startswith(("http://", "https://")):
            if len(self._urls) >= _MAX_CACHED_URLS:
                self._urls.clear()
            self._urls[text] = url
        return url

    async def _send_handling_redirects(self, request: Any, follow_redirects: bool, history: list[Any]) -> Any:
        while True:
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
                    with suppress(self.adapter.library.RemoteProtocolError):  # it may not be followed
                        response.next_request = self._build_redirect_request(request, response)
                    return response
                request = await self._follow(request, response)
                history = [*history, response]
                await response.aread()
                if len(history) > min(self.max_redirects, response.max_redirects):
                    message = "Exceeded maximum allowed redirects."
                    raise self.adapter.library.TooManyRedirects(message, request=request)
            except BaseException:
                await response.aclose()
                raise

    async def _send_single_request(self, request: Any) -> Any:
        response = await self.adapter.send(SERVICE.__get__(self), request, whole_body=_whole_body.get())
        if "set-cookie" in response.headers:
            self.cookies.extract_cookies(response)
        response.default_encoding = self._default_encoding
        return response

    async def _follow(self, request: Any, response: Any) -> Any:
        """Returns the request that follows a redirect. Raises the audited denial if it may not be followed."""
        scheme, location = request.url.scheme, response.headers["Location"]
        if why_not_follow(location, scheme) is not None:
            raise self.adapter.error(await SERVICE.__get__(self).refuse_redirect(scheme, location), request)
        return self._build_redirect_request(request, response)

    def _build_redirect_request(self, request: Any, response: Any) -> Any:
        library = self.adapter.library
        reason = why_not_follow(response.headers["Location"], request.url.scheme)
        if reason is not None:  # `_follow` has checked that; this is for the library's own loop
            raise library.RemoteProtocolError(reason, request=request)
        try:
            following: Any = super()._build_redirect_request(request, response)
        except (library.InvalidURL, ValueError) as error:
            message = f"Invalid URL in location header: {error}."
            raise library.RemoteProtocolError(message, request=request) from error
        if _origin(following.url) != _origin(request.url):
            self._drop_credentials(following)
        return following

    def _drop_credentials(self, following: Any) -> None:
        for name in list(following.headers):
            if name not in KEPT_ACROSS_ORIGINS:
                del following.headers[name]
        # The plugin set a cookie without a domain for every host; the new host gets only its own.
        cookies = self.adapter.library.Cookies()
        for cookie in self.cookies.jar:
            if cookie.domain:
                cookies.jar.set_cookie(cookie)
        cookies.set_cookie_header(following)


SERVICE = hidden_slot(GuardedClientMixin, "_service")


def _origin(url: Any) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port
