"""How a worker describes the types of its results, so that the host can turn JSON back into Python values.

JSON has no bytes, tuples or dates. A worker describes the type of a result in the small language below, and the host
builds a validator from it. The language names types of the standard library only; nothing is imported or evaluated. A
description that is unknown or nested too deep is refused. A type that the language can't express (a model, a class of
the plugin) is described as `None`, and its values stay as JSON has them.

    "bytes"   ["tuple", "int", "str"]   ["list", "date"]   ["dict", "str", "bytes"]   ["union", "int", "null"]
"""

import types
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin
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
_JSON_TYPES = frozenset({bool, int, float, str, type(None)})
_MAX_DEPTH = 16
_MAX_WORDS = 256
"""Words of one description. A longer one is neither sent nor accepted."""
_CONFIG = ConfigDict(val_json_bytes="base64")

Decode: TypeAlias = Callable[[bytes], Any]


def describe_type(annotation: Any) -> JsonValue:
    """Returns the description of a type, or `None` where the values that JSON itself has are as close as it gets."""
    described = _describe(annotation)
    return described if _needs_decoding(described) and _word_count(described) <= _MAX_WORDS else None


def decoder(description: JsonValue) -> Decode:
    """Returns a function from JSON to the values of a described type. It raises `ValueError` for JSON that doesn't fit.

    Raises:
        ProtocolFault: the description is invalid.
    """
    if description is None:
        return from_json
    if _word_count(description) > _MAX_WORDS:
        raise ProtocolFault(f"a result type of more than {_MAX_WORDS} words")
    built = _build(description, _MAX_DEPTH)

    @cache  # built on first use, so that a worker with thousands of methods doesn't keep its host busy
    def validate() -> Decode:
        return TypeAdapter(built, config=_CONFIG).validate_json

    return lambda data: validate()(data)


def _word_count(description: JsonValue) -> int:
    return sum(map(_word_count, description)) if isinstance(description, list) else 1


def _describe(annotation: Any) -> JsonValue:
    if annotation is None:
        return "null"
    if isinstance(annotation, type) and annotation in _NAMES:
        return _NAMES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(arguments[0])
    if origin in (Union, types.UnionType):
        return ["union", *map(_describe, arguments)]
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        return ["tuple...", _describe(arguments[0])]
    if origin in _COLLECTIONS.values():
        return [origin.__name__, *map(_describe, arguments)]
    return None


def _needs_decoding(description: JsonValue) -> bool:
    """Whether a described value differs from what JSON gives back."""
    if isinstance(description, list):
        return description[0] in ("tuple", "tuple...", "set", "frozenset") or any(map(_needs_decoding, description[1:]))
    return description is not None and _SCALARS[str(description)] not in _JSON_TYPES


def _build(description: JsonValue, depth: int) -> Any:
    if description is None:
        return JsonValue
    if isinstance(description, str) and description in _SCALARS:
        return _SCALARS[description]
    if not (isinstance(description, list) and description and depth):
        raise ProtocolFault("an unknown result type")
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
    raise ProtocolFault("an unknown result type")
