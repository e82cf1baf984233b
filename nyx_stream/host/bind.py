"""A typed face for a loaded plugin: an object that has the methods of a `Protocol` and calls the plugin.

The host and an isolated plugin share no classes. So a result is validated a second time, against what the protocol
says it is: the static types of the host are true at run time.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from nyx_stream.errors import InvalidResult, UnknownMethod
from nyx_stream.isolation.code.exports import validation_errors

_T = TypeVar("_T")
_STREAMS = (AsyncIterator, AsyncGenerator, AsyncIterable)


class Callee(Protocol):
    """What `bind` needs of a handle."""

    @property
    def id(self) -> str: ...
    @property
    def methods(self) -> Mapping[str, bool]: ...
    def call(self, method: str, /, **arguments: Any) -> Awaitable[Any]: ...
    def stream(self, method: str, /, **arguments: Any) -> AsyncGenerator[Any, None]: ...


def bind(callee: Callee, protocol: Callable[..., _T]) -> _T:
    """Returns an object with every public method of `protocol`.

    Raises:
        UnknownMethod: the plugin exports no such method, or a stream where the protocol has none, or the reverse.
        TypeError: `protocol` is no class, or its annotations cannot be validated.
    """
    if not isinstance(protocol, type):
        raise TypeError(f"{protocol!r} is no Protocol class")
    methods = {
        name: _method(callee, name, member)
        for name, member in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    }
    return type(f"{protocol.__name__} of {callee.id}", (), methods)()  # type: ignore[no-any-return]


def _method(callee: Callee, name: str, member: Callable[..., Any]) -> Callable[..., Any]:
    returned = get_type_hints(member, include_extras=True).get("return", Any)
    stream = get_origin(returned) in _STREAMS or returned in _STREAMS
    known = callee.methods.get(name)
    if known is None:
        raise UnknownMethod(callee.id, f"exports no method {name!r} that the protocol asks for")
    if known is not stream:
        raise UnknownMethod(callee.id, f"{name} is {'a stream' if known else 'no stream'}, other than in the protocol")
    if stream:
        returned = (*get_args(returned), Any)[0]
    signature = inspect.signature(member)
    if any(
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in signature.parameters.values()
    ):
        raise TypeError(f"{name}: a protocol names every argument")
    validate = TypeAdapter(returned).validate_python

    def checked(value: Any) -> Any:
        try:
            return validate(value, from_attributes=True)
        except ValidationError as error:
            raise InvalidResult(
                callee.id, f"{name}: the result does not fit the protocol: {validation_errors(error)}"
            ) from error

    def named(self: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = signature.bind(self, *args, **kwargs).arguments
        return {key: value for key, value in bound.items() if value is not self}

    async def call(self: object, /, *args: Any, **kwargs: Any) -> Any:
        return checked(await callee.call(name, **named(self, args, kwargs)))

    async def steps(self: object, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        items = callee.stream(name, **named(self, args, kwargs))
        try:
            async for item in items:
                yield checked(item)
        finally:
            await items.aclose()

    method = steps if stream else call
    method.__name__ = name
    return method
