"""What a method returns, told by a worker so that its host can read JSON back as Python has it.

JSON has no bytes, no tuples and no dates. A worker describes the type of a result in the small language below; the
host builds a validator from the description. It names types of the standard library only, and nothing is imported or
evaluated: a description that is not understood, or nested too deep, is refused. What the language has no word for
(a model, a type of the plugin's own) is described as `None` and comes back as JSON has it.

    "bytes"   ["tuple", "int", "str"]   ["list", "date"]   ["dict", "str", "bytes"]   ["union", "int", "null"]
"""

import types
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import ConfigDict, JsonValue, TypeAdapter
from pydantic_core import from_json

from nyx_stream.isolation.remote.wire.frames import ProtocolFault

_SCALARS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(bool, int, float, str, bytes, date, datetime, time, timedelta, Decimal, UUID, complex),
        *(IPv4Address, IPv6Address, Path, PurePath, PurePosixPath),
    )
} | {"null": type(None)}
_NAMES = {kind: name for name, kind in _SCALARS.items()}
_COLLECTIONS: dict[str, Any] = {kind.__name__: kind for kind in (list, set, frozenset, dict, tuple)}
_PLAIN = frozenset({bool, int, float, str, type(None)})
_DEEPEST = 16
_MOST_WORDS = 256
"""Words of one description: a longer one is not sent, and not understood."""
_CONFIG = ConfigDict(val_json_bytes="base64")

Decode = Callable[[bytes], Any]


def describe_type(annotation: Any) -> JsonValue:
    """Returns the description of a type, `None` where JSON's own values are as near as it gets."""
    described = _describe(annotation)
    return described if _richer(described) and _words(described) <= _MOST_WORDS else None


def decoder(description: JsonValue) -> Decode:
    """Returns a function from JSON to the values of a described type.

    It raises `ValueError` for JSON that does not fit.

    Raises:
        ProtocolFault: the description is not understood.
    """
    if description is None:
        return from_json
    if _words(description) > _MOST_WORDS:
        raise ProtocolFault(f"a result type of more than {_MOST_WORDS} words")
    return _Validator(_build(description, _DEEPEST))


class _Validator:
    """Is built when it is first used: a worker with thousands of methods would else keep its host busy at once."""

    __slots__ = ("_type", "_validate")

    def __init__(self, built: Any) -> None:
        self._type = built
        self._validate: Decode | None = None

    def __call__(self, data: bytes) -> Any:
        if self._validate is None:
            self._validate = TypeAdapter(self._type, config=_CONFIG).validate_json
        return self._validate(data)


def _words(description: JsonValue) -> int:
    if isinstance(description, list):
        return sum(map(_words, description))
    return 1


def _describe(annotation: Any) -> JsonValue:
    if annotation is None:
        return "null"
    if annotation in _NAMES if isinstance(annotation, type) else False:
        return _NAMES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0])
    if origin in (Union, types.UnionType):
        return _all("union", arguments)
    if origin in _COLLECTIONS.values():
        return _collection(origin, arguments)
    return None


def _collection(origin: Any, arguments: tuple[Any, ...]) -> JsonValue:
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return _all("tuple...", arguments[:1])
    return _all(origin.__name__, arguments)


def _all(word: str, arguments: tuple[Any, ...]) -> JsonValue:
    parts = [_describe(argument) for argument in arguments]
    return [word, *parts]


def _richer(description: JsonValue) -> bool:
    """Whether a described value is anything else than what JSON gives back."""
    if isinstance(description, list):
        return description[0] in ("tuple", "tuple...", "set", "frozenset") or any(map(_richer, description[1:]))
    return description is not None and _SCALARS[str(description)] not in _PLAIN


def _build(description: JsonValue, depth: int) -> Any:
    if description is None:
        return JsonValue
    if isinstance(description, str) and description in _SCALARS:
        return _SCALARS[description]
    if not (isinstance(description, list) and description and depth):
        raise ProtocolFault("a result type that is not understood")
    word, *parts = description
    built = tuple(_build(part, depth - 1) for part in parts)
    if word == "union" and built:
        return Union[built]  # noqa: UP007  # from a tuple
    if word == "tuple...":
        built = (*built[:1], ...)
        word = "tuple"
    if isinstance(word, str) and word in _COLLECTIONS and (built or word == "tuple"):
        try:
            return _COLLECTIONS[word][built or ((),)]
        except TypeError:
            pass
    raise ProtocolFault("a result type that is not understood")
