"""A signature of plain values is validated by the schema that pydantic would build; any other by pydantic."""

import functools
import inspect
import itertools
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from nyx_stream.isolation.code.exports import JSON, plain_adapter, plain_validator

PLAIN = [None, bool, int, float, str, bytes, dict, list, Any]


def decorated(method):
    @functools.wraps(method)
    async def wrapper(*args, **kwargs):
        return await method(*args, **kwargs)

    return wrapper


class Methods:
    """Signatures; pydantic must read those that begin with `other`."""

    async def nothing(self) -> None: ...
    async def one(self, text: str) -> str: ...
    async def every(self, a: None, b: bool, c: int, d: float, e: str, f: bytes, g: dict, h: list, i: Any): ...
    async def defaults(self, a: int, b: str = "x", c: bool = False, d: Any = None, e: float = 1.5) -> int: ...
    async def places(self, a: int, /, b: int, *, c: int, d: bytes = b"") -> int: ...
    async def only_places(self, a: int, b: int = 2, /) -> int: ...
    async def only_names(self, *, a: int = 1, b: str) -> int: ...
    async def items(self, count: int = 3) -> AsyncIterator[int]:
        yield count

    async def other_variable(self, *args: int, **kwargs: int): ...
    async def other_type(self, a: list[int]): ...
    async def other_union(self, a: int | None = None): ...
    async def other_json(self, a: JsonValue): ...
    async def other_constraint(self, a: Annotated[int, Field(ge=0)]): ...
    async def other_default(self, a: int = Field(default=1, ge=0)): ...
    async def other_mutable(self, a: list = []): ...  # noqa: B006
    async def other_bare(self, a): ...
    @decorated
    async def other_wrapped(self, a: int): ...


METHODS = Methods()
NAMES = [name for name in vars(Methods) if not name.startswith("_")]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.sampled_from(["1", "2.5", "true", "yes", b"\xff", [1], {"a": 1}, (1,), object()]),
)  # fmt: skip


def hints(method):
    return inspect.get_annotations(method.__func__, eval_str=True)


def bare(schema):
    """Without empty metadata."""
    if isinstance(schema, dict):
        return {name: bare(value) for name, value in schema.items() if not (name == "metadata" and not value)}
    return [bare(part) for part in schema] if isinstance(schema, list) else schema


def outcome(validate, value):
    """The result of a validation as text: the arguments for the method, or the errors."""
    try:
        called = validate(value)
    except ValidationError as error:
        return repr(error.errors(include_url=False, include_context=False))
    if inspect.isasyncgen(called):
        return repr(called.ag_frame.f_locals)
    found = repr(called.cr_frame.f_locals)
    called.close()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_only_plain_signatures_are_handled(name):
    """Signatures that pydantic may read more from are left to it."""
    method = getattr(METHODS, name)
    assert (plain_validator(method, hints(method)) is None) is name.startswith("other")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("other")])
@given(data=st.data())
def test_it_validates_as_pydantic_does(name, data):
    """The same arguments or the same errors, for values and for JSON."""
    method = getattr(METHODS, name)
    ours = plain_validator(method, hints(method))
    theirs = TypeAdapter(method, config=JSON).validator
    args = tuple(data.draw(st.lists(VALUES, max_size=4)))
    names = st.sampled_from([*list(inspect.signature(method).parameters), "self", "other"])
    kwargs = data.draw(st.dictionaries(names, VALUES, max_size=4))
    value = ArgsKwargs(args, kwargs)
    assert outcome(ours.validate_python, value) == outcome(theirs.validate_python, value)
    text = TypeAdapter(Any).dump_json(
        {name: value for name, value in kwargs.items() if not isinstance(value, bytes) and type(value) is not object}
    )
    assert outcome(ours.validate_json, text) == outcome(theirs.validate_json, text)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("default", [inspect.Parameter.empty, None, True, 1, 1.5, "x", b"x"])
def test_the_schema_is_that_of_pydantic(kind, default, monkeypatch):
    """For each type and default, positional and by name."""
    from nyx_stream.isolation.code import exports

    made = []
    monkeypatch.setattr(exports, "SchemaValidator", lambda schema, config: made.append((schema, config)))
    for place, only in itertools.product((True, False), repeat=2):
        given_as = "a: K, /" if only else "a: K" if place else "*, a: K"
        text = given_as.replace("K", "kind" if default is inspect.Parameter.empty else "kind = default")
        space = {"kind": kind, "default": default}
        exec(f"class One:\n    async def method(self, {text}): ...", space)  # signatures by text
        method = space["One"]().method
        plain_validator(method, {"a": kind})
        theirs = TypeAdapter(method, config=JSON)
        schema, config = made.pop()
        assert bare(schema) == bare(theirs.core_schema)
        assert config == dict(JSON)


def test_adapters_of_plain_types_are_pydantics_own():
    """The adapter is built once; any other type is left to the caller."""
    for kind in (*PLAIN, JsonValue):
        assert plain_adapter(kind) is plain_adapter(kind)
        assert plain_adapter(kind).core_schema == TypeAdapter(kind, config=JSON).core_schema
    assert plain_adapter(list[int]) is None
    assert plain_adapter("int") is None
