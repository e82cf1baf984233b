"""Values across the levels: what a method returns is the same Python value, wherever it runs."""

import datetime as dt
import decimal
import uuid

import pytest
from pydantic import BaseModel

from nyx_stream.errors import InvalidArguments, InvalidResult

CODE = """
    import datetime, decimal, enum, uuid
    from dataclasses import dataclass
    from typing import Annotated, Any, Optional, Union
    from pydantic import BaseModel, Field

    Nested = dict[str, list[tuple[int, datetime.date]]]

    class Point(BaseModel):
        x: int
        y: float = 0.5

    class Image(BaseModel):
        data: bytes

    class Size(BaseModel):
        size: int

    @dataclass
    class Pair:
        a: int
        b: str

    class Main(Plugin):
        @export
        async def data(self, value: bytes) -> bytes: return value
        @export
        async def when(self, value: datetime.datetime) -> datetime.datetime: return value
        @export
        async def money(self, value: decimal.Decimal) -> decimal.Decimal: return value
        @export
        async def id_of(self, value: uuid.UUID) -> uuid.UUID: return value
        @export
        async def several(self, value: tuple[int, bytes, str]) -> tuple[int, bytes, str]: return value
        @export
        async def many(self, value: tuple[int, ...]) -> tuple[int, ...]: return value
        @export
        async def unique(self, value: set[int]) -> frozenset[int]: return frozenset(value)
        @export
        async def maybe(self, value: Optional[bytes] = None) -> bytes | None: return value
        @export
        async def nested(self, value: Nested) -> Nested: return value
        @export
        async def number(self, value: float) -> float: return value
        @export
        async def anything(self, value: Any) -> Any: return value
        @export
        async def bounded(self, value: Annotated[int, Field(gt=3)]) -> Annotated[int, Field(lt=10)]: return value
        @export
        async def point(self, value: Point) -> Point: return value
        @export
        async def pair(self, value: Pair) -> Pair: return value
        @export
        async def image(self, data: bytes) -> Image: return Image(data=data)
        @export
        async def beside(self, data: bytes) -> tuple[Size, bytes]: return Size(size=len(data)), data
        @export
        async def large(self, size: int) -> str: return "x" * size
        @export
        async def cyclic(self) -> Any:
            found = []
            found.append(found)
            return found
    """


def values():
    """A value for each method that returns what it is given."""
    return {
        "data": bytes(range(256)),
        "when": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "money": decimal.Decimal("1.10"),
        "id_of": uuid.UUID(int=7),
        "several": (1, b"\xff\x00", "ü"),
        "many": (1, 2, 3),
        "unique": frozenset({1, 2}),
        "maybe": b"\x80",
        "nested": {"a": [(1, dt.date(2026, 1, 2))]},
        "number": 1e300,
        "anything": {"a": [1, None, True, "x"], "b": {}},
        "bounded": 5,
    }


async def test_values_come_back_as_they_went(load):
    """Bytes, dates, decimals, tuples, sets and what is nested in them are equal after a call, and of the same type."""
    plugin = await load(CODE)
    for name, value in values().items():
        back = await plugin.call(name, value=value)
        assert (back, type(back)) == (value, type(value)), name
    assert await plugin.call("maybe") is None
    assert await plugin.call("number", value=float("inf")) == float("inf")


async def test_a_protocol_gives_models(load):
    """Bound to a protocol, results are the host's own classes."""

    class Spot(BaseModel):
        x: int
        y: float

    class Points:
        async def point(self, value: Spot) -> Spot: ...

    plugin = await load(CODE)
    assert await plugin.bind(Points).point(Spot(x=1, y=2.5)) == Spot(x=1, y=2.5)
    assert await plugin.bind(Points).point({"x": "3"}) == Spot(x=3, y=0.5)


async def test_a_model_is_an_instance_inline_and_a_dictionary_elsewhere(load, level):
    """The one difference that the reference tells of: the host has no class of a sealed plugin's."""
    plugin = await load(CODE)
    for name, value, expected in (("point", {"x": 1}, {"x": 1, "y": 0.5}), ("pair", {"a": 1, "b": "c"}, None)):
        back = await plugin.call(name, value=value)
        assert (vars(back) if level == "inline" else back) == (expected or value)
        assert (type(back) is dict) is (level != "inline")


async def test_bytes_in_a_model_and_beside_it(load, level):
    """Bytes travel by themselves and in tuples; in a model, those that are text, and any other is a typed error."""

    class Image(BaseModel):
        data: bytes

    class Size(BaseModel):
        size: int

    class Images:
        async def image(self, data: bytes) -> Image: ...
        async def beside(self, data: bytes) -> tuple[Size, bytes]: ...

    images = (await load(CODE)).bind(Images)
    assert await images.image(b"text") == Image(data=b"text")
    assert await images.beside(b"\xff\x00") == (Size(size=2), b"\xff\x00")
    if level == "inline":
        assert await images.image(b"\xff\x00") == Image(data=b"\xff\x00")
        return
    with pytest.raises(InvalidResult, match=r"image: the result cannot be encoded: .*utf-8"):
        await images.image(b"\xff\x00")


async def test_values_that_do_not_fit_or_cannot_travel_are_typed_errors(load, level):
    """What is out of bounds, cyclic or too large to send is an error of that call, and the plugin goes on."""
    plugin = await load(CODE)
    with pytest.raises(InvalidArguments, match="bounded: value: Input should be greater than 3"):
        await plugin.call("bounded", value=1)
    with pytest.raises(InvalidResult, match="bounded: the result does not fit"):
        await plugin.call("bounded", value=99)
    if level != "inline":
        with pytest.raises(InvalidResult, match=r"large: the result has .* bytes as JSON, over the limit"):
            await plugin.call("large", size=17 * 2**20)
        with pytest.raises(InvalidResult, match="cyclic: the result cannot be encoded"):
            await plugin.call("cyclic")
        with pytest.raises(InvalidArguments, match=r"data: the arguments have .* over the limit"):
            await plugin.call("data", value=bytes(17 * 2**20))
        with pytest.raises(InvalidArguments, match="anything: "):
            await plugin.call("anything", value=object())
    assert len(await plugin.call("large", size=10 * 2**20)) == 10 * 2**20
