"""A large value that is decoded in steps is the value that is decoded at once, and so is the error."""

import base64
import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue
from pydantic_core import to_json

from nyx_stream.isolation.remote.wire.frames import LargeBody
from nyx_stream.isolation.remote.wire.large_value import STEP_SIZES, Steps, StepSizes, decode_in_steps
from nyx_stream.isolation.remote.wire.types import decoder

RETURNS = (None, "bytes", "date", ["list", "bytes"], ["list", ["tuple", "int", "str"]], ["union", "bytes", "null"])

TEXTS = [
    *(
        rb'"\ud83d"',
        rb'"\ude00"',
        rb'"\ud83dx"',
        rb'"\ud83d\ud83d"',
        rb'"\ud8"',
        rb'"\ud83d\ude00"',
        rb'"\\ud83d\ude00"',
    ),
    *(rb'"\\\\\""', rb'"\\\"', rb'"\u00e9\n\"\\ "', rb'"\x"', rb'"\u12g4"', b'"a\nb"', '"é漢\U0001f600\x7f"'.encode()),
    *(b'"\xff"', b'"\xc3"', b'"\xe6\xbc"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"'),
    *(b'"', b'""', b'"a', b'"a" ', b' "a"', b'"a""b"', b'"a" "b"', b'"a"]', b'"a"x"'),
    *(b'"YWJj"', b'"YWI="', b'"YWI"', b'"YQ==YQ=="', b'"YWJjYR"', b'"YWJj YWJj"', rb'"\u0059WJj"'),
    *(b'"-_-_+/+/"', b'"+/+/-_-_"', rb'"-_-_\u002b/+/"'),
    *(b"[", b"[]", b"[ ]", b"[,]", b"[1,]", b"[,1]", b"[1,,2]", b"[1,2]]", b"[1,2", b"[1 2]", b"[1],[2]"),
    *(b"[[1,2],[3]]", b"[[1,2],[3],[[4],[5]]]", b'[[1,"a"],[2,"b"]]', b'[{"a":1},{"a":[{},{}]},{}]'),
    *(b'["a","b","c,d"]', rb'["a\",","b"]', rb'["a\\","b"]', b'["a","b","c]', b'["a",1,"b",null]', b'["YWJj","YWI="]'),
    *(b"[1e400,NaN,-Infinity,12345678901234567890123]", b"nul", b"{}", b"1"),
]

values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=12).map(base64.b64encode),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=16,
)
of_text = st.sampled_from([b"\\", b"u", b"d83d", b"\\ude00", b'"', b"\xc3", b"\xa9", b"a", b"\n"])
of_list = st.sampled_from([b",", b"[", b"]", b"{", b"}", b'"', b"\\", b"1", b":", b" "])


def written(value: object, ascii_only: bool) -> bytes:
    """Encodes a value as another encoder does."""
    return json.dumps(value, default=bytes.decode, ensure_ascii=ascii_only).encode("utf-8", "replace")


bodies = (
    st.binary(min_size=1, max_size=40)
    | (st.binary(max_size=40) | st.lists(of_text, max_size=12).map(b"".join)).map(lambda inner: b'"%b"' % inner)
    | (st.binary(max_size=40) | st.lists(of_list, max_size=12).map(b"".join)).map(lambda inner: b"[%b]" % inner)
    | (st.text(max_size=40) | values).map(lambda value: to_json(value, inf_nan_mode="constants"))
    | st.builds(written, values, st.booleans())
    | st.sampled_from(TEXTS)
)
sizes = st.builds(StepSizes, *[st.integers(1, 40)] * 3)


def outcome(read: Callable[[], object]) -> str:
    """Returns the result as text, so that NaN equals NaN and 1 doesn't equal 1.0."""
    try:
        return repr(read())
    except ValueError as error:
        return f"{type(error)}: {error}"


def parts_of(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    return [body[begin:end] for begin, end in pairwise(places)]


def read(steps: Steps) -> object:
    """Returns the value of a complete body."""
    try:
        while next(steps):
            pass
    except StopIteration as over:
        return over.value
    raise AssertionError("it waits, and all has arrived")


def read_arriving(returns: JsonValue, parts: list[bytes], sizes: StepSizes) -> object:
    """Decodes a body while it arrives: each part after everything before it."""
    body = LargeBody()
    steps = decode_in_steps(decoder(returns), returns, body, sizes)
    for part in parts:
        body.parts.append(part)  # `add` would wait for more
        while next(steps):
            pass
    body.finish()
    return read(steps)


def in_parts(returns: JsonValue, body: bytes, cuts: list[int], sizes: StepSizes) -> str:
    return outcome(lambda: read_arriving(returns, parts_of(body, cuts), sizes))


def at_once(returns: JsonValue, body: bytes) -> str:
    return outcome(lambda: decoder(returns)(body))


@given(st.sampled_from(RETURNS), bodies, st.lists(st.integers(0, 200), max_size=6), sizes)
def test_in_steps_or_at_once_is_the_same(returns, body, cuts, sizes):
    """However a body is split and cut: the same value, or the same error."""
    assert in_parts(returns, body, cuts, sizes) == at_once(returns, body)


@pytest.mark.parametrize("returns", RETURNS, ids=str)
@pytest.mark.parametrize("body", TEXTS, ids=repr)
def test_cut_at_every_position(returns, body):
    """Cutting within escapes, pairs, characters and alphabets doesn't change the result."""
    for size in range(1, len(body) + 1):
        for cuts in ([size], list(range(len(body)))):
            assert in_parts(returns, body, cuts, StepSizes(size, size, size)) == at_once(returns, body)


LARGE_VALUES = {
    "ascii": ("x" * 300_000, None),
    "text": ("é漢\U0001f600" * 20_000, None),
    "escapes": ('\n"\\\x01' * 40_000, None),
    "quotes": ('{"a": "b\\n"}, ' * 20_000, None),
    "backslashes": ("\\" * 200_001, None),
    "bytes": (bytes(range(256)) * 1_000, "bytes"),
    "numbers": (list(range(60_000)), None),
    "texts": (['a","b\\', "é", '"'] * 20_000, None),
    "records": ([{"a": number, "b": "c,{d},{"} for number in range(10_000)], None),
    "rows": ([[number, "a],[b"] for number in range(20_000)], None),
    "list of bytes": ([b"abc", b"\xff" * 10] * 10_000, ["list", "bytes"]),
}


class Counting:
    """A decoder that records how many bytes it is given."""

    def __init__(self, returns: JsonValue) -> None:
        self._decode = decoder(returns)
        self.sizes: list[int] = []

    def __call__(self, data: bytes) -> object:
        self.sizes.append(len(data))
        return self._decode(data)


@pytest.mark.parametrize(("value", "returns"), LARGE_VALUES.values(), ids=LARGE_VALUES)
@pytest.mark.parametrize("part", [65_536, 16_385])
def test_the_json_of_a_worker_is_decoded_in_small_steps(value, returns, part):
    """No step decodes more than its size and the rest of the step before."""
    encoded, counting = to_json(value, bytes_mode="base64"), Counting(returns)
    body = LargeBody()
    for begin in range(0, len(encoded), part):
        body.add(encoded[begin : begin + part])
    body.finish()
    assert read(decode_in_steps(counting, returns, body)) == value
    size = STEP_SIZES.elements if isinstance(value, list) else STEP_SIZES.plain
    assert max(counting.sizes) <= size + 1000


def test_surrogate_pairs_are_decoded_in_steps():
    """A text of surrogate pairs, as other encoders write it, is decoded in steps too."""
    counting = Counting(None)
    body = LargeBody(json.dumps("\U0001f600" * 30_000).encode())
    assert read(decode_in_steps(counting, None, body)) == "\U0001f600" * 30_000
    assert max(counting.sizes) <= STEP_SIZES.text + 12 + 2


def test_unexpected_json_is_decoded_once_it_is_complete():
    """A list in which every apparent end of an element isn't one costs a few wasted steps."""
    value, counting = ["a", *[{"a": '","' * 1000}] * 100], Counting(None)
    assert read(decode_in_steps(counting, None, LargeBody(to_json(value)))) == value
    assert len(counting.sizes) <= 5
