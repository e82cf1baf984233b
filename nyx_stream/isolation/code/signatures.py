"""The arguments of methods whose parameters are plain values, validated as pydantic would, without asking it.

pydantic takes a hundred times as long to make the schema of a signature as it takes to compile it. Here the schema is
put together from those that pydantic made of each type, once. Knows functions; knows no plugin.
"""

from collections.abc import Mapping
from functools import cache
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType, MethodType
from typing import Any

from pydantic import ConfigDict, JsonValue, TypeAdapter
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, core_schema

_PARAMETERS = (None, type(None), bool, int, float, str, bytes, dict, list, Any)
_RESULTS = (*_PARAMETERS, JsonValue)
"""Types whose schema depends on nothing but themselves. What is kept of them is kept for good: they are nobody's.
That of `JsonValue` refers to itself, and cannot be part of another as it is."""

JSON = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
"""For what JSON has no form of by itself."""
_CORE = CoreConfig(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
_DEFAULTS = (bool, int, float, str, bytes, type(None))
_DECORATED = ("__wrapped__", "__signature__")
_NONE = object()


def plain_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Returns what validates a result of a plain type, or `None` for any other."""
    return _adapter(annotation) if _among(_RESULTS, annotation) else None


def plain_validator(bound: MethodType, hints: Mapping[str, Any]) -> SchemaValidator | None:
    """Returns what validates the arguments of a method, or `None` where its signature is for pydantic to read.

    Args:
        bound: the method; a call of it is what a validation returns.
        hints: its annotations, resolved.
    """
    function = bound.__func__
    if not isinstance(function, FunctionType) or any(name in function.__dict__ for name in _DECORATED):
        return None
    code = function.__code__
    count = code.co_argcount
    if code.co_flags & (CO_VARARGS | CO_VARKEYWORDS) or not count:
        return None
    defaults = function.__defaults__ or ()
    given = dict(zip(code.co_varnames[count - len(defaults) : count], defaults, strict=True))
    given |= function.__kwdefaults__ or {}
    parameters = []
    for place, name in enumerate(code.co_varnames[: count + code.co_kwonlyargcount]):
        if place == 0:  # the instance
            continue
        schema = _schema(hints.get(name, _NONE), given.get(name, _NONE))
        if schema is None:
            return None
        mode = _mode(place, code.co_posonlyargcount, count)
        parameters.append(core_schema.arguments_parameter(name, schema, mode=mode))
    arguments = core_schema.arguments_schema(parameters)
    return SchemaValidator(core_schema.call_schema(arguments, bound), _CORE)


def _among(kinds: tuple[Any, ...], annotation: object) -> bool:
    # Annotations are the author's: none is compared, for that would run its code.
    return any(annotation is kind for kind in kinds)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=JSON)


def _schema(annotation: Any, default: object) -> CoreSchema | None:
    if not _among(_PARAMETERS, annotation):
        return None
    schema = _adapter(annotation).core_schema
    if default is _NONE:
        return schema
    return core_schema.with_default_schema(schema, default=default) if type(default) in _DEFAULTS else None


def _mode(place: int, only: int, count: int) -> Any:
    """How the parameter at `place` may be given, of which the first `only` have no name, and `count` have a place."""
    if place < only:
        return "positional_only"
    return "positional_or_keyword" if place < count else "keyword_only"
