"""Host side of `self.http`: an RPC binding of the plugin's `LocalHttpService`.

Validates what the worker sent and calls the service, one hop at a time. Redirects, cookies and authentication are the
client's work, which runs in the worker: each request that they lead to arrives here and is decided like any other.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, JsonValue

from nyx_stream.capabilities.http.service import (
    HttpFault,
    HttpRequest,
    RawHeaders,
    RequestFlaw,
    Timeouts,
    parse_narrowing,
)
from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.host.attenuation import Narrow
from nyx_stream.isolation.remote.host.bodies import Downloads, Uploads, send_evenly
from nyx_stream.isolation.remote.host.broker import HandlerContext, Reply
from nyx_stream.isolation.remote.wire.body_stream import BodyStream
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    MAX_INLINE,
    Arguments,
    CapabilityError,
    Packed,
    error_of,
    pack,
)
from nyx_stream.policy import RequestRule

if TYPE_CHECKING:
    from nyx_stream.capabilities.http.local_service import LocalHttpService

MAX_PATTERNS = 4
"""Rules of a narrowed client, those above it counted, with wildcards other than one final `**`. The host compares each
with a path character by character, and a worker chooses both."""
MAX_PATTERN = 1024
"""Characters of the path of one of them."""

_NO_BODY = (204, 304)

UrlText = Annotated[str, Field(max_length=2**17)]
MethodText = Annotated[str, Field(max_length=1024)]
Header = Annotated[str, Field(max_length=2**20)]
"""Latin-1: each character is one byte."""
Seconds = Annotated[float, Field(ge=0)]


class Fetch(Arguments):
    """`fetch`: one request. `content` is its body, or `body` the number of an announced one.

    `timeout` has the seconds of connect, read, write and pool. `whole_body` says that the whole response
    body will be read, so that the host may wait for it.
    """

    method: MethodText
    url: UrlText
    headers: Annotated[list[Annotated[list[Header], Field(min_length=2, max_length=2)]], Field(max_length=4096)]
    timeout: Annotated[list[Seconds | None], Field(min_length=4, max_length=4)]
    content: Packed = b""
    body: int | None = None
    whole_body: bool
    flaw: Annotated[RequestFlaw | None, Field(strict=False)] = None


class RefuseRedirect(Arguments):
    """`refuse_redirect`: the client does not follow `location` from a URL of `scheme`."""

    scheme: Annotated[str, Field(max_length=64)]
    location: UrlText


class HttpHandler:
    """A `Handler`, and `Narrowable`: one action for each method of `HttpService`, `announce` for request bodies."""

    def __init__(self, context: HandlerContext) -> None:
        self._plugin = context.plugin
        self._service: LocalHttpService = context.capabilities.service("http")
        self._uploads = Uploads()
        self._downloads = Downloads(context.plugin)
        self._narrowed = False
        self._patterns = 0

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action == "fetch":
            try:
                return await self._fetch(Fetch.model_validate(arguments))
            except HttpFault as fault:
                raise CapabilityError(fault.kind, str(fault)) from None
        if action == "announce":
            return self._uploads.give()
        if action == "limits":
            return Reply([*self._service.limits])
        if action == "refuse_redirect":
            return await self._refuse_redirect(RefuseRedirect.model_validate(arguments))
        if action == "close" and self._narrowed:
            await self._service.aclose()
            return Reply()
        raise ProtocolFault(f"http has no action {action!r}")

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

    async def _fetch(self, ask: Fetch) -> Reply:
        pipe = None if ask.body is None else self._uploads.take(ask.body)
        # A worker has no more bodies than connections; one that it gave up may be here for a moment longer.
        try:
            if unread := self._downloads.active:
                connections = self._service.limits.connections
                if unread >= 2 * connections:
                    raise self._exceeded("connections", connections, f"{unread} responses are not read")
            body = ask.content if pipe is None else _received(pipe, self._plugin)
            headers = _encoded(ask.headers)
            reply = await self._service.send(
                HttpRequest(ask.method, ask.url, headers, body, Timeouts(*ask.timeout), ask.whole_body, ask.flaw)
            )
        finally:
            if pipe is not None:
                pipe.close()
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
            if ask.whole_body or ask.method == "HEAD" or reply.status in _NO_BODY:
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

    async def _refuse_redirect(self, ask: RefuseRedirect) -> Reply:
        try:
            raise await self._service.refuse_redirect(ask.scheme, ask.location)
        except ValueError:
            raise ProtocolFault("a redirect was refused that may be followed") from None

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
    while (chunk := await pipe.receive(lambda fault: error_of(fault, plugin))) is not None:
        yield chunk


def _encoded(headers: list[list[str]]) -> RawHeaders:
    try:
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError:
        raise ProtocolFault("a header is not Latin-1") from None
