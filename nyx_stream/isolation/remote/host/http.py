"""Host side of `self.http`: makes each request with the plugin's guarded client, one hop at a time.

Redirects, cookies and authentication are the worker's, as they are the client's at level `inline`: each request that
they lead to is asked for here and decided like any other. What a request may carry, how much of it and where to, the
guarded client decides. Knows nothing of the library that the plugin uses.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from copy import copy
from typing import Annotated, Any

import httpx
from pydantic import Field, JsonValue

from nyx_stream.capabilities.http.client_mixin import passage_of
from nyx_stream.capabilities.http.redirects import why_not
from nyx_stream.capabilities.http.service import read_narrowing
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.host.attenuation import Narrow
from nyx_stream.isolation.remote.host.bodies import Downloads, Uploads, send_evenly
from nyx_stream.isolation.remote.host.broker import Means, Reply
from nyx_stream.isolation.remote.wire.body_stream import BodyStream
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    MAX_INLINE,
    Arguments,
    CapabilityError,
    Packed,
    RemoteFault,
    error_of,
    pack,
)
from nyx_stream.policy import RequestRule

_NO_BODY = (204, 304)
_REMEMBERED = 256
_LONGEST_REMEMBERED = 1024

MOST_PATTERNS = 4
"""Rules of a narrowed client, those above it counted, with wildcards other than one final `**`. Each such is compared
with a path character by character, by the host, with patterns and paths of the worker's choice."""
LONGEST_PATTERN = 1024
"""Characters of the path of one of them."""

Url = Annotated[str, Field(max_length=2**17)]
Header = Annotated[str, Field(max_length=2**20)]
"""Latin-1: each character is one byte."""


class Fetch(Arguments):
    """One request. `body` is the number of an announced body, `content` a body that is here already.

    `whole` says that the response's body will be wanted as a whole, so that it may be waited for.
    """

    method: Annotated[str, Field(max_length=1024)]
    url: Url
    headers: Annotated[list[Annotated[list[Header], Field(min_length=2, max_length=2)]], Field(max_length=4096)]
    timeout: dict[str, float | None] | None = None
    content: Packed = b""
    body: int | None = None
    whole: bool


class Redirect(Arguments):
    """A `Location` that the worker's client refuses to follow, from a response to `url`."""

    method: Annotated[str, Field(max_length=1024)]
    url: Url
    location: Url


class _Sent(httpx.AsyncByteStream):
    """The body of a request, as the worker sends it."""

    def __init__(self, pipe: BodyStream, plugin: str) -> None:
        self._pipe = pipe
        self._plugin = plugin

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self._pipe.go()
        while (chunk := await self._pipe.receive(self._failed)) is not None:
            yield chunk

    def _failed(self, fault: RemoteFault) -> Exception:
        return error_of(fault, self._plugin)


class HostHttp:
    """A `Handler`, and `Leased`: `facts`, `announce`, `fetch` and `redirect`; for a narrowed client also `close`."""

    def __init__(self, means: Means) -> None:
        self._plugin = means.plugin
        self._guard = means.assignment.guard
        self._passage = passage_of(means.provision.get("http"))
        self._urls: dict[str, httpx.URL] = {}
        self._uploads = Uploads()
        self._downloads = Downloads(means.plugin)
        self._narrowed = False
        self._patterns = 0

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action == "fetch":
            return await self._fetch(Fetch.model_validate(arguments))
        if action == "announce":
            return self._uploads.give()
        if action == "facts":
            return Reply(self._facts())
        if action == "redirect":
            return self._refuse(Redirect.model_validate(arguments))
        if action == "close" and self._narrowed:
            await self._passage.aclose()
            return Reply()
        raise ProtocolFault(f"http cannot {action!r}")

    def narrow(self, ask: Narrow) -> "HostHttp":
        rules, terms = read_narrowing(ask.rules, ask.terms)
        less = copy(self)  # bodies and what was parsed are the plugin's, whichever of its clients they are for
        less._patterns = self._patterns + self._count_patterns(rules)
        if less._patterns > MOST_PATTERNS:
            detail = f"{less._patterns} rules in one that are no plain path, those above it counted"
            raise LimitExceeded(plugin=self._plugin, limit="patterns", allowed=MOST_PATTERNS, detail=detail)
        less._passage = self._passage.narrowed(rules, terms)
        less._narrowed = True
        return less

    def watch(self, told: Callable[[Exception], None]) -> None:
        self._passage.watch(told)

    async def aclose(self) -> None:
        self._uploads.close()
        await self._downloads.close()

    def _facts(self) -> dict[str, JsonValue]:
        limits = self._guard.limits
        return {
            "plugin": self._plugin,
            "redirects": limits.redirects,
            "connections": limits.connections,
            "response_bytes": limits.response_bytes,
        }

    def _count_patterns(self, rules: Sequence[RequestRule]) -> int:
        patterns = [rule.path for rule in rules if rule.path is not None and not (rule.path.exact or rule.path.subtree)]
        longest = max((len(pattern.text) for pattern in patterns), default=0)
        if longest > LONGEST_PATTERN:
            detail = f"a path with wildcards has {longest} characters"
            raise LimitExceeded(plugin=self._plugin, limit="patterns", allowed=LONGEST_PATTERN, detail=detail)
        return len(patterns)

    async def _fetch(self, ask: Fetch) -> Reply:
        pipe = None if ask.body is None else self._uploads.take(ask.body)
        try:
            self._check_bodies()
            response = await self._passage.exchange(self._request(ask, pipe))
        finally:
            if pipe is not None:
                pipe.close()
        try:
            return await self._reply(ask, response)
        except BaseException:
            await response.aclose()
            raise

    def _check_bodies(self) -> None:
        # A worker has no more of them than connections; one that it gave up may be here for a moment longer.
        most = self._guard.limits.connections
        if len(self._downloads) >= 2 * most:
            detail = f"{len(self._downloads)} responses that are not read"
            raise LimitExceeded(plugin=self._plugin, limit="connections", allowed=most, detail=detail)

    def _request(self, ask: Fetch, pipe: BodyStream | None) -> httpx.Request:
        return httpx.Request(
            ask.method,
            self._url(ask.url),
            headers=_headers(ask.headers),
            stream=_Sent(pipe, self._plugin) if pipe is not None else httpx.ByteStream(ask.content),
            extensions={} if ask.timeout is None else {"timeout": ask.timeout},
        )

    def _url(self, text: str) -> httpx.URL:
        # Parsing costs as much as deciding, and most plugins ask for the same few URLs.
        url = self._urls.get(text)
        if url is None:
            url = _url(text)
            if len(text) < _LONGEST_REMEMBERED:
                if len(self._urls) >= _REMEMBERED:
                    self._urls.clear()
                self._urls[text] = url
        return url

    async def _reply(self, ask: Fetch, response: Any) -> Reply:
        head: dict[str, JsonValue] = {
            "status": response.status_code,
            "version": response.extensions["http_version"].decode("latin-1"),
            "reason": response.extensions["reason_phrase"].decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.headers.raw],
            **self._facts(),
        }
        first: list[bytes] = []
        if ask.whole or _is_empty(ask.method, response):
            size = 0
            async for chunk in response.stream:
                first.append(chunk)
                size += len(chunk)
                if size > MAX_INLINE:
                    break
            else:
                await response.aclose()
                return Reply(head | {"content": pack(b"".join(first))})

        async def send(pipe: BodyStream) -> None:
            for chunk in first:
                await send_evenly(pipe, chunk)
            await response.stream.relay(pipe)

        return Reply(head, (self._downloads.begin(send, response.aclose),))

    def _refuse(self, ask: Redirect) -> Reply:
        request = httpx.Request(ask.method, _url(ask.url))
        reason = why_not(ask.location, request.url.scheme)
        if reason is None:
            raise ProtocolFault("a redirect was refused that may be followed")
        return self._passage.refuse_redirect(request, ask.location, reason)


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL as error:
        raise CapabilityError("InvalidURL", str(error)) from None


def _headers(pairs: list[list[str]]) -> list[tuple[bytes, bytes]]:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    except UnicodeEncodeError:
        raise ProtocolFault("a header is not bytes") from None


def _is_empty(method: str, response: Any) -> bool:
    """Whether the response has no body, so that nothing needs to be waited for (RFC 9112, section 6.3)."""
    if method == "HEAD" or response.status_code in _NO_BODY:
        return True
    return bool(response.headers.get("content-length") == "0")
