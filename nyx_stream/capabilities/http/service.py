"""The HTTP service: the protocol between a guarded client and what sends its requests.

Theory of operation
-------------------
A plugin holds a real `httpx.AsyncClient`, the same class at every isolation level. It turns each
request, first or redirected, into a frozen `HttpRequest` and hands that to its `HttpService`. At level `inline` that is
`LocalHttpService`, which decides, counts, dials and sends. In a worker it is a service of the same protocol that asks
the host by RPC, where the plugin's `LocalHttpService` does the work. No HTTP library appears below the client.

A service raises `NetworkDenied`, `Revoked` and `LimitExceeded`, and `HttpFault` for everything that goes wrong on the
way. The client turns each into an error of its library, once, in `library_adapter`.
"""

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

from nyx_stream.errors import NetworkDenied, NyxError
from nyx_stream.policy import RequestRule, SandboxPolicy
from nyx_stream.policy.limits import Term, parse_terms

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
Terms: TypeAlias = Mapping[str, Term | None]


class FaultKind(StrEnum):
    """What went wrong between client and server. Each value is the name of an error class of httpx and httpx2."""

    CONNECT_ERROR = "ConnectError"
    CONNECT_TIMEOUT = "ConnectTimeout"
    READ_ERROR = "ReadError"
    READ_TIMEOUT = "ReadTimeout"
    WRITE_ERROR = "WriteError"
    WRITE_TIMEOUT = "WriteTimeout"
    POOL_TIMEOUT = "PoolTimeout"
    LOCAL_PROTOCOL_ERROR = "LocalProtocolError"
    REMOTE_PROTOCOL_ERROR = "RemoteProtocolError"
    DECODING_ERROR = "DecodingError"


class HttpFault(NyxError):
    """A request failed on its way: no connection, a timeout, a broken protocol. Not a refusal, so a retry may help."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class RequestFlaw(StrEnum):
    """How a request object differs from what its library builds: the reason for refusing it."""

    METHOD = "the method isn't exactly a str"
    URL = "the URL isn't exactly the library's URL type"
    HEADERS = "the headers aren't exactly the library's Headers type"
    EXTENSIONS = "the extensions aren't exactly a dict"
    BODY = "the body isn't exactly bytes"
    TIMEOUT = "the timeout extension holds something other than seconds"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for each kind of waiting, as httpx has them; `None` leaves only the request's own deadline."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, in exact types.

    `url` is text, which only the service interprets. `body` is bytes, or an iterable of the plugin's that is read once.
    `whole_body` says that the caller will read the whole response body, so that a service may wait for it. A request
    with a `flaw` has no other content: the service refuses it.
    """

    method: str
    url: str
    headers: RawHeaders = field(repr=False)
    body: bytes | AsyncIterable[bytes] = field(default=b"", repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    whole_body: bool = False
    flaw: RequestFlaw | None = None


class HttpLimits(NamedTuple):
    """The limits in force that a client or a worker must keep; see `policy.Limits`."""

    redirects: int
    connections: int
    response_bytes: int


class Sink(Protocol):
    """Where a body is relayed to."""

    def offer(self, chunk: bytes | memoryview) -> bool:
        """Takes some bytes at once; returns whether it can take more before it was drained."""

    async def drain(self) -> None:
        """Waits until it can take more."""


class HttpBody(Protocol):
    """The body of a response, still encoded. Each method raises as `HttpService.send`."""

    async def read(self) -> bytes | None:
        """Returns the next bytes, or `None` once the body is complete."""

    async def read_all(self) -> bytes:
        """Returns the rest of the body at once."""

    async def aclose(self) -> None:
        """Gives up the rest of the body, and its connection."""


Body = TypeVar("Body", bound=HttpBody, covariant=True)


@dataclass(frozen=True, slots=True)
class HttpReply(Generic[Body]):
    """A response whose head has arrived."""

    status: int
    version: bytes
    reason: bytes
    headers: RawHeaders = field(repr=False)
    body: Body = field(repr=False)
    limits: HttpLimits = field(repr=False)


class HttpService(Protocol):
    """HTTP for one plugin, or for a part of it that was handed on. Ends with its lease."""

    @property
    def plugin(self) -> str | None:
        """The plugin's id."""

    async def send(self, request: HttpRequest) -> HttpReply[HttpBody]:
        """Decides on a request, sends it, and returns the response, its body unread.

        Raises:
            NetworkDenied: it isn't granted.
            Revoked: the lease has ended, or a budget of it is used up.
            LimitExceeded: a limit of the grant was reached.
            HttpFault: it failed on its way.
        """

    def early_denial(self, method: str, url: str, kind: type[NetworkDenied] = NetworkDenied) -> NetworkDenied | None:
        """Returns the audited denial that `send` would raise, where it's known from the text of the URL alone.

        It saves the client the parsing of the URL, and `kind` the conversion of the error to the class of the client's
        library. `None` doesn't mean that the request is granted.
        """

    async def refuse_redirect(self, scheme: str, location: str) -> NetworkDenied:
        """Audits a redirect from a `scheme` URL that `headers.why_not_follow` refuses, and returns the denial."""

    def narrow(self, rules: Sequence[RequestRule], terms: Terms) -> Self:
        """Returns a service for less, on a lease below this one's.

        Raises:
            NetworkDenied: a rule covers more than this service grants; audited.
            Revoked: the lease has ended.
        """

    async def aclose(self) -> None:
        """Closes every connection, or ends the narrowed service."""


def parse_narrowing(rules: Sequence[str], terms: Mapping[str, object]) -> tuple[Sequence[RequestRule], Terms]:
    """Parses what `narrow` of a client is given.

    Raises:
        PolicyError, ValueError: `rules` is empty, or a rule or a term doesn't parse.
    """
    if not rules:
        raise ValueError("narrow() needs at least one rule")
    return SandboxPolicy.locked_down().allow_request(*rules).request, parse_terms("http", terms)
