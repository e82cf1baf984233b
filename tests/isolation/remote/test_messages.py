"""The body of a frame becomes a value of its model, or a protocol fault."""

import errno
import json
from contextlib import suppress
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.errors import FilesystemDenied, LimitExceeded, NetworkDenied, Revoked, TripwireDenied
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    CapabilityError,
    CapabilityRequest,
    CapabilityResponse,
    LeaseEnded,
    LogRecord,
    MethodDescription,
    Order,
    Ready,
    RemoteFault,
    Sealed,
    Update,
    decode,
    error_of,
    fault_of,
)
from nyx_stream.isolation.remote.wire.types import decoder, describe_type

MODELS = {
    Order: FrameKind.ORDER,
    Sealed: FrameKind.SEALED,
    Ready: FrameKind.READY,
    CapabilityRequest: FrameKind.REQUEST,
    CapabilityResponse: FrameKind.RESPONSE,
    Update: FrameKind.UPDATE,
    LeaseEnded: FrameKind.LEASE_ENDED,
    LogRecord: FrameKind.LOG,
    RemoteFault: FrameKind.FAILED,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(list(MODELS)), st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_a_message_or_a_fault(model, body):
    """No body raises anything but ProtocolFault."""
    with suppress(ProtocolFault):
        assert isinstance(decode(model, Frame(MODELS[model], body=body)), model)


@given(st.sampled_from(list(MODELS)), st.data())
def test_unknown_fields_are_refused(model, data):
    """A body with the right names and any values may be accepted; one with an additional name is refused."""
    fields = {name: data.draw(json_values) for name in model.model_fields}
    try:
        decode(model, Frame(MODELS[model], body=json.dumps(fields).encode()))
    except ProtocolFault:
        return
    with pytest.raises(ProtocolFault):
        decode(model, Frame(MODELS[model], body=json.dumps(fields | {"plugin_id": "x"}).encode()))


FIELDS = {"capability": "http", "action": "GET", "target": "x\0", "rule": None, "reason": "no rule", "hint": "a\nb"}


@pytest.mark.parametrize("kind", [FilesystemDenied, NetworkDenied, Revoked])
def test_a_denial_keeps_everything_but_its_plugin(kind):
    """Class and fields arrive; the plugin is the connection's, whatever the sender claims."""
    sent = RemoteFault.model_validate_json(fault_of(kind(plugin="evil", **FIELDS)).encode())
    error = error_of(sent, "p")
    assert type(error) is kind
    assert {name: getattr(error, name) for name in FIELDS} == FIELDS
    assert error.plugin == "p"


def test_errors_with_a_class_of_their_own_keep_it_and_others_their_name():
    """A limit, an OSError of the right subclass, a denial of unknown class, and any other error by its name."""
    limit = error_of(fault_of(LimitExceeded(plugin="p", limit="memory", allowed=5, detail="too much")), "p")
    assert isinstance(limit, LimitExceeded)
    assert (limit.limit, limit.allowed, limit.detail) == ("memory", 5, "too much")
    missing = error_of(fault_of(FileNotFoundError(errno.ENOENT, "gone", "/x\udcff")), "p")
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.filename) == (errno.ENOENT, "/x\\udcff")
    assert type(error_of(fault_of(TripwireDenied(plugin="p", **FIELDS)), "p")).__name__ == "SandboxDenied"
    other = error_of(fault_of(KeyError("k")), "p")
    assert isinstance(other, CapabilityError)
    assert other.name == "KeyError"


def test_an_error_with_an_unusable_message_is_encoded():
    """Also if its `__str__` raises, or is huge."""

    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert fault_of(Nasty()).message == "its message cannot be read"
    assert len(fault_of(ValueError("x" * 10**6)).encode()) < 2**20


@given(json_values)
def test_any_type_description_is_a_decoder_or_a_fault(description):
    """A worker's description builds a decoder or breaks the protocol; nothing else is raised."""
    try:
        decode_result = decoder(description)
    except ProtocolFault:
        return
    with suppress(ValueError):
        assert decode_result(b'{"a": [1, "x"]}') is not None


def test_a_type_nested_too_deep_is_a_fault():
    """The depth of a description is limited."""
    deep = "int"
    for _ in range(100):
        deep = ["list", deep]
    with pytest.raises(ProtocolFault, match="unknown result type"):
        decoder(deep)


def test_a_type_of_too_many_words_is_a_fault_and_never_sent():
    """The length of a description is limited, so a worker can't keep its host busy building validators."""
    with pytest.raises(ProtocolFault, match="more than 256 words"):
        decoder(["tuple", *["date"] * 256])
    assert describe_type(tuple[(date,) * 256]) is None
    assert decoder(describe_type(tuple[(date,) * 255])) is not None


@pytest.mark.parametrize(
    ("annotation", "description"),
    [
        (bytes, "bytes"),
        (int, None),
        (list[int], None),
        (dict[str, bytes], ["dict", "str", "bytes"]),
        (tuple[int, ...], ["tuple...", "int"]),
        (tuple[()], ["tuple"]),
        (bytes | None, ["union", "bytes", "null"]),
        (MethodDescription, None),
        (list[MethodDescription], None),
        (tuple[MethodDescription, int], ["tuple", None, "int"]),
    ],
)
def test_types_are_described_where_json_loses_them(annotation, description):
    """Only types that JSON would change are described, and every description can be built."""
    assert describe_type(annotation) == description
    decoder(description)
