"""A plugin's request object, read once into exact types. After this nothing looks at the object again.

Every attribute may be a property that answers differently the second time, every value a subclass with methods of its
own; what is not exactly the expected type is refused. Decides nothing about where the request goes.
"""

from collections.abc import AsyncIterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from nyx_stream.capabilities.http.exchange import RawHeaders, Timeouts
from nyx_stream.capabilities.http.library_adapter import LibraryAdapter

_KINDS = ("connect", "read", "write", "pool")


class BadRequest(Exception):
    """The request object is not what the library would build; the text says why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the request said when it was read. `body` is bytes, or a stream of the plugin's."""

    method: str
    url: Any
    headers: RawHeaders
    body: bytes | AsyncIterable[bytes]
    timeouts: Timeouts


def snapshot(request: Any, dialect: LibraryAdapter) -> Snapshot:
    """Reads a request of the dialect's library. Raises `BadRequest`, or RuntimeError for a synchronous stream."""
    method, url, stream = request.method, request.url, request.stream
    headers, extensions = request.headers, request.extensions
    library = dialect.library
    if type(method) is not str:
        raise BadRequest("the method is no plain str")
    if type(url) is not library.URL:
        raise BadRequest(f"the URL is no plain {library.__name__}.URL")
    if type(headers) is not library.Headers:
        raise BadRequest(f"the headers are no plain {library.__name__}.Headers")
    if type(extensions) is not dict:
        raise BadRequest("the extensions are no plain dict")
    return Snapshot(method, url, headers.raw, _body(stream, library), _timeouts(extensions.get("timeout")))


def _body(stream: Any, library: Any) -> bytes | AsyncIterable[bytes]:
    if type(stream) is library.ByteStream:
        body = b"".join(stream)
        if type(body) is not bytes:
            raise BadRequest("the body is no plain bytes")
        return body
    if not isinstance(stream, AsyncIterable):
        raise RuntimeError("Attempted to send an sync request with an AsyncClient instance.")
    return stream


def _timeouts(values: object) -> Timeouts:
    if values is None:
        return Timeouts()
    if type(values) is not dict or not all(_is_timeout(values.get(kind)) for kind in _KINDS):
        raise BadRequest("the timeout extension holds something else than seconds")
    return Timeouts(**{kind: values.get(kind) for kind in _KINDS})


def _is_timeout(value: object) -> bool:
    return value is None or (type(value) in (int, float) and isfinite(value) and value >= 0)  # type: ignore[arg-type,operator]
