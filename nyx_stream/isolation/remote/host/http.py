"""Host side of `self.http`: an RPC binding of the plugin's `LocalHttpService`.

Validates what the worker sent and calls the service, one hop at a time. Redirects, cookies and authentication are the
client's work, which runs in the worker: each request that they lead to arrives here and is decided like any other.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, JsonValue

from nyx_stream.capabilities.http.service import (
    HttpFault,
    HttpReply,
    HttpRequest,
    RawHeaders,
    RequestFlaw,
    Timeouts,
    parse_narrowing,
)
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.capability_set import CapabilitySet
from nyx_stream.isolation.remote.host.bodies import Downloads, Uploads, send_evenly
from nyx_stream.isolation.remote.host.broker import Handler, Narrow, Reply
from nyx_stream.isolation.remote.wire.body_stream import BodyStream
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import MAX_INLINE, CapabilityError, Packed, error_of, pack
from nyx_stream.policy import RequestRule

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.local_service import ResponseBody

MAX_PATTERNS = 4
"""Rules of a narrowed client, those above it counted, with wildcards other than one final `**`. The host compares each
with a path character by character, and a worker chooses both."""
MAX_PATTERN = 1024
"""Characters of the path of one of them."""

_NO_BODY = (204, 304)

UrlText = Annotated[str, Field(max_length=2**17)]
Header = Annotated[str, Field(max_length=2**20)]
"""Latin-1: each character is one byte."""
Headers = Annotated[list[Annotated[list[Header], Field(min_length=2, max_length=2)]], Field(max_length=4096)]
Seconds = Annotated[list[Annotated[float, Field(ge=0)] | None], Field(alias="timeout", min_length=4, max_length=4)]
"""Of connect, read, write and pool."""


class HttpHandler(Handler):
    """One action for each method of `HttpService`, `announce` for request bodies."""

    capability = "http"
    actions = ("announce", "close", "fetch", "limits", "refuse_redirect")

    def __init__(self, capabilities: CapabilitySet) -> None:
        super().__init__(capabilities)
        self._uploads = Uploads()
        self._downloads = Downloads(self._plugin)
        self._narrowed = False
        self._patterns = 0

    def narrow(self, ask: Narrow) -> "HttpHandler":
        rules, terms = parse_narrowing(ask.rules, ask.terms)
        less = copy(self)  # bodies belong to the plugin: all its clients share them
        less._patterns = self._patterns + self._count_patterns(rules)
        if less._patterns > MAX_PATTERNS:
            detail = f"{less._patterns} rules with wildcards in one client, those above it counted"
            raise self._exceeded("patterns", MAX_PATTERNS, detail)
        less._service = self._service.narrow(rules, terms)
        less._narrowed = True
        return less

    def watch(self, ended: Callable[[Exception], None]) -> None:
        self._service.watch(ended)

    async def aclose(self) -> None:
        self._uploads.close()
        await self._downloads.close()

    async def announce(self) -> Reply:
        return self._uploads.give()

    async def limits(self) -> Reply:
        return Reply([*self._service.limits])

    async def close(self) -> Reply:
        if not self._narrowed:
            raise ProtocolFault("http has no action 'close'")
        await self._service.aclose()
        return Reply()

    async def refuse_redirect(self, scheme: Annotated[str, Field(max_length=64)], location: UrlText) -> Reply:
        try:
            raise await self._service.refuse_redirect(scheme, location)
        except ValueError:
            raise ProtocolFault("a redirect was refused that may be followed") from None

    async def fetch(
        self,
        *,
        method: Annotated[str, Field(max_length=1024)],
        url: UrlText,
        headers: Headers,
        timeouts: Seconds,
        whole_body: bool,
        content: Packed = b"",
        body: int | None = None,
        flaw: Annotated[RequestFlaw | None, Field(strict=False)] = None,
    ) -> Reply:
        """Sends one request. `content` is its body, or `body` the number of an announced one."""
        pipe = None if body is None else self._uploads.take(body)
        try:
            try:
                # A worker has no more bodies than connections; one that it gave up may be here for a moment longer.
                if unread := self._downloads.active:
                    connections = self._service.limits.connections
                    if unread >= 2 * connections:
                        raise self._exceeded("connections", connections, f"{unread} responses are not read")
                sent = content if pipe is None else _received(pipe, self._plugin)
                request = HttpRequest(method, url, _encoded(headers), sent, Timeouts(*timeouts), whole_body, flaw)
                reply = await self._service.send(request)
            finally:
                if pipe is not None:
                    pipe.close()
            return await self._answer(request, reply)
        except HttpFault as fault:
            raise CapabilityError(fault.kind, str(fault)) from None

    async def _answer(self, request: HttpRequest, reply: "HttpReply[ResponseBody]") -> Reply:
        answer: dict[str, JsonValue] = {
            "status": reply.status,
            "version": reply.version.decode("latin-1"),
            "reason": reply.reason.decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in reply.headers],
            "limits": [*reply.limits],
        }
        first = b""
        response = reply.body
        try:
            if request.whole_body or request.method == "HEAD" or reply.status in _NO_BODY:
                first = await response.read_all(MAX_INLINE + 1)
                if response.complete and len(first) <= MAX_INLINE:
                    return Reply(answer | {"content": pack(first)})
        except BaseException:
            await response.aclose()
            raise

        async def send(pipe: BodyStream) -> None:
            try:
                await send_evenly(pipe, first)
                await response.relay(pipe)
            except HttpFault as fault:
                raise CapabilityError(fault.kind, str(fault)) from None

        return Reply(answer, (self._downloads.begin(send, response.aclose),))

    def _count_patterns(self, rules: Sequence[RequestRule]) -> int:
        patterns = [rule.path for rule in rules if rule.path is not None and not (rule.path.exact or rule.path.subtree)]
        longest = max((len(pattern.text) for pattern in patterns), default=0)
        if longest > MAX_PATTERN:
            raise self._exceeded("patterns", MAX_PATTERN, f"a path with wildcards has {longest} characters")
        return len(patterns)

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self._plugin, limit=limit, allowed=allowed, detail=detail)


async def _received(pipe: BodyStream, plugin: str) -> AsyncIterator[bytes]:
    """Yields the body of a request, as the worker sends it."""
    await pipe.go()
    while (chunk := await pipe.receive(partial(error_of, plugin=plugin))) is not None:
        yield chunk


def _encoded(headers: list[list[str]]) -> RawHeaders:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError:
        raise ProtocolFault("a header is not Latin-1") from None
