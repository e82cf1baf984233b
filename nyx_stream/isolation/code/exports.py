"""The exported methods of a plugin as validated calls. Knows the plugin's class, not where or for whom it runs."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import JsonValue, PydanticUserError, TypeAdapter, ValidationError

from nyx_stream.errors import InvalidArguments, InvalidResult, PluginLoadError
from nyx_stream.isolation.code.exception_text import describe
from nyx_stream.isolation.code.signatures import JSON, plain_adapter, plain_validator
from nyx_stream.plugin import Plugin, exported
from nyx_stream.text import escape

_STREAMS = (AsyncIterator, AsyncGenerator, AsyncIterable)


@dataclass(frozen=True, slots=True)
class Method:
    """One exported method of one plugin instance.

    `begin` takes `ArgsKwargs`, validates them, and returns the coroutine or asynchronous generator, not yet started;
    `check` validates a result, or one item of a stream. Both are pydantic's own functions and raise its
    `ValidationError`. With `from_attributes`, values of other classes with the same attributes are taken: host and
    plugin need not share a model class. `begin_json` takes the arguments as a JSON object instead, `encode` turns what
    `check` returned into JSON. `returns` is the type of the result, or of an item.
    """

    plugin: str
    name: str
    stream: bool
    returns: Any
    begin: Callable[..., Any]
    check: Callable[..., Any]
    begin_json: Callable[..., Any]
    encode: Callable[..., bytes]

    def invalid_arguments(self, error: ValidationError) -> InvalidArguments:
        """The error for what `begin` raised."""
        return InvalidArguments(self.plugin, f"{self.name}: {faults(error)}")

    def invalid_result(self, error: ValidationError) -> InvalidResult:
        """The error for what `check` raised."""
        return InvalidResult(self.plugin, f"{self.name}: the result does not fit: {faults(error)}")


def methods_of(name: str, plugin: Plugin) -> dict[str, Method]:
    """Returns the exported methods of an instance, by name.

    Raises:
        PluginLoadError: annotations do not resolve, or name types that cannot be validated.
    """
    return {method: _method(name, method, getattr(plugin, method)) for method in exported(type(plugin))}


def faults(error: ValidationError) -> str:
    """Returns the faults of a validation on one line, without the values: they may be secret or endless."""
    return "; ".join(
        f"{escape('.'.join(str(part) for part in fault['loc']))}: {fault['msg']}".removeprefix(": ")
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _method(plugin: str, name: str, bound: MethodType) -> Method:
    stream = inspect.isasyncgenfunction(bound)
    try:
        hints = get_type_hints(bound, include_extras=True)
        returned = hints.get("return", inspect.Signature.empty)
        if stream and get_origin(returned) in _STREAMS:
            returned = get_args(returned)[0]
        elif stream:
            returned = inspect.Signature.empty
        if returned is inspect.Signature.empty:
            returned = JsonValue
        taking = plain_validator(bound, hints) or _adapter(_resolved(bound, hints)).validator
        giving = plain_adapter(returned) or _adapter(returned)
    except Exception as error:  # annotations are the author's expressions: evaluating them may raise anything
        raise PluginLoadError(plugin, f"{name}: its annotations cannot be validated: {describe(error)}") from error
    return Method(
        plugin, name, stream, returned,
        begin=taking.validate_python, check=giving.validator.validate_python,
        begin_json=taking.validate_json, encode=giving.serializer.to_json,
    )  # fmt: skip


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=JSON)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a model: it has a configuration of its own


def _resolved(bound: MethodType, hints: dict[str, Any]) -> MethodType:
    """Returns a copy of the method whose annotations are types.

    pydantic looks for the names of annotations that are text in the caller's module; they are the plugin's.
    """
    function = bound.__func__
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is no function")
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__dict__.update(function.__dict__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = hints
    return MethodType(copy, bound.__self__)
