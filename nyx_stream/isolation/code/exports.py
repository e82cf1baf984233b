"""From an entry point to a plugin object and its exported methods as validated calls."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType, MethodType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import CoreConfig, CoreSchema, SchemaValidator, core_schema

from nyx_stream.errors import InvalidArguments, InvalidResult, PluginLoadError
from nyx_stream.isolation.code.modules import PluginModules
from nyx_stream.plugin import Context, Plugin, exported
from nyx_stream.text import describe_error, escape

JSON = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
"""How values are written that JSON itself can't express."""
_CORE_JSON = CoreConfig(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")

_STREAMS = (AsyncIterator, AsyncGenerator, AsyncIterable)


@dataclass(frozen=True, slots=True)
class Method:
    """One exported method of one plugin instance.

    Attributes:
        plugin: id of the plugin.
        name: name of the method.
        stream: whether it is an asynchronous generator.
        returns: the type of the result, or of an item.
        begin: validates `ArgsKwargs` and returns the coroutine or generator, not yet started. With `from_attributes`,
            values of other classes with the same attributes fit: host and plugin need not share a model class.
        check: validates a result, or one item. As `begin`, it raises pydantic's `ValidationError`.
        begin_json: as `begin`, with the arguments as a JSON object.
        encode: turns what `check` returned into JSON.
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
        """Returns the error to raise for the `ValidationError` of `begin`."""
        return InvalidArguments(self.plugin, f"{self.name}: {validation_errors(error)}")

    def invalid_result(self, error: ValidationError) -> InvalidResult:
        """Returns the error to raise for the `ValidationError` of `check`."""
        return InvalidResult(self.plugin, f"{self.name}: the result does not fit: {validation_errors(error)}")


def instantiate(name: str, entry: str, modules: PluginModules, context: Context) -> tuple[Plugin, dict[str, Method]]:
    """Imports `entry` and creates the plugin `name` from it. Call this with the plugin's attribution.

    Raises:
        PluginLoadError: it doesn't import, isn't a `Plugin`, its `__init__` raised, or the annotations of a method
            can't be validated. The cause is chained.
    """
    try:
        found = modules.load(entry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # importing runs the plugin's code: SystemExit must not end the host
        raise PluginLoadError(name, f"{entry} does not import: {describe_error(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise PluginLoadError(name, f"{entry} is not a subclass of nyx_stream.Plugin")
    try:
        plugin = found.__new__(found)
        plugin._context = context
        plugin.__init__()  # type: ignore[misc]  # after the context, so that `__init__` can use capabilities
        return plugin, methods_of(name, plugin)
    except (PluginLoadError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginLoadError(name, f"{entry} cannot be instantiated: {describe_error(error)}") from error


def methods_of(name: str, plugin: Plugin) -> dict[str, Method]:
    """Returns the exported methods of an instance, by name.

    Raises:
        PluginLoadError: annotations don't resolve, or name types that can't be validated.
    """
    return {method: _method(name, method, getattr(plugin, method)) for method in exported(type(plugin))}


def validation_errors(error: ValidationError) -> str:
    """Returns the errors of a validation on one line, without the values, which may be secret or huge."""
    return "; ".join(
        f"{escape('.'.join(str(part) for part in item['loc']))}: {item['msg']}".removeprefix(": ")
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _method(plugin: str, name: str, bound: MethodType) -> Method:
    stream = inspect.isasyncgenfunction(bound)
    try:
        hints = get_type_hints(bound, include_extras=True)
        returned = hints.get("return", _EMPTY)
        if stream:
            returned = get_args(returned)[0] if get_origin(returned) in _STREAMS else _EMPTY
        if returned is _EMPTY:
            returned = JsonValue
        arguments = plain_validator(bound, hints) or _adapter(_resolved(bound, hints)).validator
        result = plain_adapter(returned) or _adapter(returned)
    except Exception as error:  # annotations are the author's expressions: evaluating them may raise anything
        reason = describe_error(error)
        raise PluginLoadError(plugin, f"{name}: its annotations cannot be validated: {reason}") from error
    return Method(
        plugin, name, stream, returned,
        begin=arguments.validate_python, check=result.validator.validate_python,
        begin_json=arguments.validate_json, encode=result.serializer.to_json,
    )  # fmt: skip


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=JSON)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a model: it has its own configuration


_plain_adapter = cache(_adapter)


def _resolved(bound: MethodType, hints: dict[str, Any]) -> MethodType:
    """Returns a copy of the method whose annotations are types.

    pydantic resolves annotations that are text in its caller's module, but these names are defined in the plugin's.
    """
    function = bound.__func__
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is not a function")
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__dict__.update(function.__dict__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = hints
    return MethodType(copy, bound.__self__)


# Building the schema of a signature takes pydantic a hundred times as long as compiling it. Where all parameters are
# plain values, the schema is assembled here instead, from schemas that pydantic built once for each type.

_PARAMETERS = (None, type(None), bool, int, float, str, bytes, dict, list, Any)
_RESULTS = (*_PARAMETERS, JsonValue)
"""Types whose schema depends only on the type itself, so that one can be cached for all plugins. The schema of
`JsonValue` refers to itself, and so can't become part of another."""
_DEFAULTS = (bool, int, float, str, bytes, type(None))
_DECORATED = ("__wrapped__", "__signature__")
_EMPTY = inspect.Parameter.empty
_MODES: Mapping[Any, Literal["positional_only", "positional_or_keyword", "keyword_only"]] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional_only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional_or_keyword",
    inspect.Parameter.KEYWORD_ONLY: "keyword_only",
}


def plain_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Returns the adapter for a result of a plain type, or `None` for any other."""
    return _plain_adapter(annotation) if _is_one_of(_RESULTS, annotation) else None


def plain_validator(bound: MethodType, hints: Mapping[str, Any]) -> SchemaValidator | None:
    """Returns a validator for the arguments of a method with plain parameters, or `None` for any other signature.

    `hints` are its resolved annotations. The validator returns the result of calling the method.
    """
    function = bound.__func__
    if not isinstance(function, FunctionType) or any(name in function.__dict__ for name in _DECORATED):
        return None
    parameters = []
    for parameter in inspect.signature(bound).parameters.values():
        schema = _schema(hints.get(parameter.name, _EMPTY), parameter.default)
        mode = _MODES.get(parameter.kind)
        if schema is None or mode is None:
            return None
        parameters.append(core_schema.arguments_parameter(parameter.name, schema, mode=mode))
    arguments = core_schema.arguments_schema(parameters)
    return SchemaValidator(core_schema.call_schema(arguments, bound), _CORE_JSON)


def _is_one_of(types: tuple[Any, ...], annotation: object) -> bool:
    # Annotations are the author's objects: comparing them would run the author's code.
    return any(annotation is kind for kind in types)


def _schema(annotation: Any, default: object) -> CoreSchema | None:
    if not _is_one_of(_PARAMETERS, annotation):
        return None
    schema = _plain_adapter(annotation).core_schema
    if default is _EMPTY:
        return schema
    return core_schema.with_default_schema(schema, default=default) if type(default) in _DEFAULTS else None
