"""The state machine of host and worker: what may be sent when, and that nothing else passes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.isolation.remote.wire.frames import (
    HEADER,
    LARGE_BODY,
    MAX_BODY,
    MIN_PART,
    VERSION,
    Frame,
    FrameKind,
    LargeBody,
    ProtocolFault,
    encode,
)
from nyx_stream.isolation.remote.wire.protocol import (
    MAX_LOG_RECORDS,
    MAX_REQUESTS,
    SENDERS,
    TRANSITIONS,
    ProtocolConnection,
    ProtocolState,
)


def pair(*, until: ProtocolState = ProtocolState.RUNNING) -> tuple[ProtocolConnection, ProtocolConnection]:
    """Host and worker in the state `until`."""
    host, worker = ProtocolConnection("host"), ProtocolConnection("worker")
    for sender, receiver, kind, reached in (
        (host, worker, FrameKind.ORDER, ProtocolState.SEALING),
        (worker, host, FrameKind.SEALED, ProtocolState.SEALED),
        (host, worker, FrameKind.START, ProtocolState.LOADING),
        (worker, host, FrameKind.READY, ProtocolState.RUNNING),
    ):
        if host.state is until:
            break
        (frame,) = receiver.receive(sender.send(kind))
        assert frame.kind is kind
        assert sender.state is receiver.state is reached
    return host, worker


def test_the_table_is_complete():
    """Every kind is sent by one side, except for CANCEL, and is in the table; every state is reached."""
    assert SENDERS["host"] | SENDERS["worker"] == set(FrameKind)
    assert SENDERS["host"] & SENDERS["worker"] == {FrameKind.CANCEL}
    assert {kind for kinds in TRANSITIONS.values() for kind in kinds} == set(FrameKind)
    assert {state for kinds in TRANSITIONS.values() for state in kinds.values()} | {ProtocolState.OPENING} == set(
        ProtocolState
    )


@pytest.mark.parametrize("state", [ProtocolState.OPENING, ProtocolState.SEALING, ProtocolState.SEALED])
def test_before_the_plugin_runs_only_the_handshake_passes(state):
    """Until the host has accepted the report, a worker can't send a request, log, or claim to be ready."""
    for kind in SENDERS["worker"] - set(TRANSITIONS[state]):
        host, _ = pair(until=state)
        with pytest.raises(ProtocolFault, match=f"{kind.name} is not possible while {state}"):
            host.receive(encode(Frame(kind, 1)))
        assert host.state is ProtocolState.OVER


def test_a_worker_cannot_send_the_hosts_frames():
    """A frame that only the host may send is a fault."""
    host, _ = pair()
    with pytest.raises(ProtocolFault, match="CALL is not the peer's to send"):
        host.receive(encode(Frame(FrameKind.CALL, 1)))


def test_sending_an_invalid_frame_raises_and_changes_nothing():
    """The sender gets the error, and can continue."""
    host, worker = pair()
    for frame in (Frame(FrameKind.RESULT, 7), Frame(FrameKind.START), Frame(FrameKind.ITEM, 7)):
        with pytest.raises(ProtocolFault):
            worker.send(*frame)
    worker.receive(host.send(FrameKind.CALL, 7))
    assert host.receive(worker.send(FrameKind.RESULT, 7, body=b"1")) == [Frame(FrameKind.RESULT, 7, body=b"1")]


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameKind.RESULT, 1),
        Frame(FrameKind.ITEM, 1),
        Frame(FrameKind.END, 1),
        Frame(FrameKind.FAILED, 1),
        Frame(FrameKind.RESULT),
    ],
)
def test_a_reply_needs_its_call(frame):
    """A worker can't reply without a call, twice, or to a call as to a stream."""
    host, _ = pair()
    with pytest.raises(ProtocolFault):
        host.receive(encode(frame))
    host, _ = pair()
    host.send(FrameKind.CALL, 1)
    if frame.kind in (FrameKind.RESULT, FrameKind.FAILED) and frame.id:
        host.receive(encode(frame))
    with pytest.raises(ProtocolFault):
        host.receive(encode(frame))


def test_a_stream_sends_one_item_per_demand():
    """OPEN requests one item and NEXT another; an item without a request is a fault, and so is a second request."""
    host, worker = pair()
    worker.receive(host.send(FrameKind.OPEN, 1))
    host.receive(worker.send(FrameKind.ITEM, 1))
    with pytest.raises(ProtocolFault, match="an item of 1 that was not requested"):
        worker.send(FrameKind.ITEM, 1)
    worker.receive(host.send(FrameKind.NEXT, 1))
    with pytest.raises(ProtocolFault, match="another item of 1 is under way"):
        host.send(FrameKind.NEXT, 1)
    host.receive(worker.send(FrameKind.ITEM, 1))
    host.receive(worker.send(FrameKind.END, 1))
    with pytest.raises(ProtocolFault):
        host.receive(encode(Frame(FrameKind.ITEM, 1)))


def test_log_records_and_requests_are_limited():
    """A worker that floods the host with either breaks the protocol at a fixed number."""
    host, worker = pair()
    for _ in range(MAX_LOG_RECORDS):
        assert worker.can_log()
        host.receive(worker.send(FrameKind.LOG))
    assert not worker.can_log()
    worker.receive(host.send(FrameKind.LOG_ACK, detail=MAX_LOG_RECORDS))
    assert worker.can_log()
    for number in range(1, MAX_REQUESTS + 1):
        host.receive(worker.send(FrameKind.REQUEST, number))
    with pytest.raises(ProtocolFault, match="requests at once"):
        host.receive(encode(Frame(FrameKind.REQUEST, MAX_REQUESTS + 1)))


def test_descriptors_belong_to_their_frame():
    """As many as the header states, in order; too few or too many are a fault, and none is lost."""
    host, worker = pair()
    for number in (1, 2):
        host.receive(worker.send(FrameKind.REQUEST, number))
    data = host.send(FrameKind.RESPONSE, 1, descriptors=(10, 11)) + host.send(FrameKind.RESPONSE, 2, descriptors=(12,))
    first, second = worker.receive(data, (10, 11, 12))
    assert (first.descriptors, second.descriptors) == ((10, 11), (12,))
    for sent, received in (((10, 11), (10,)), ((10,), (10, 11))):
        host, worker = pair()
        host.receive(worker.send(FrameKind.REQUEST, 1))
        with pytest.raises(ProtocolFault, match="descriptors"):
            worker.receive(host.send(FrameKind.RESPONSE, 1, descriptors=sent), received)
        assert sorted(worker.take_descriptors()) == sorted(received)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ((MAX_BODY + 1, VERSION, 0, FrameKind.RESULT, 0, 1), "over its limit"),
        ((2**32 - 1, VERSION, 0, FrameKind.LOG, 0, 0), "over its limit"),
        ((1, VERSION, 0, FrameKind.STOPPED, 0, 0), "over its limit"),
        ((0, VERSION + 1, 0, FrameKind.RESULT, 0, 1), "protocol version"),
        ((0, VERSION, 1, FrameKind.REQUEST, 0, 1), "descriptors are too many"),
        ((0, VERSION, 0, 0x2FF, 0, 1), "unknown kind of frame"),
    ],
)
def test_a_bad_header_is_a_fault_at_once(header, text):
    """A header out of bounds ends the connection before a byte of its body is stored."""
    host, _ = pair()
    with pytest.raises(ProtocolFault, match=text):
        host.receive(HEADER.pack(*header))


def test_an_end_within_a_frame_is_a_fault():
    """A connection may close between frames, not within one."""
    host, _ = pair()
    host.receive_end()
    host, worker = pair()
    host.receive(worker.send(FrameKind.LOG, body=b"{}")[:-1])
    with pytest.raises(ProtocolFault, match="within a frame"):
        host.receive_end()


@given(st.binary(max_size=400), st.sampled_from(list(ProtocolState)[:-2]), st.sampled_from(["host", "worker"]))
def test_any_bytes_are_frames_or_a_fault(data, state, side):
    """In every state, any bytes become frames that the table allows, or a fault; nothing else is raised."""
    host, worker = pair(until=state)
    connection = host if side == "host" else worker
    frames = taking_anything(connection, side, data)
    assert connection.state is not ProtocolState.OVER or not frames


@st.composite
def framed(draw) -> bytes:
    """Bytes that are a frame, or almost one."""
    body = draw(st.binary(max_size=20))
    kind = draw(st.sampled_from([*FrameKind, 0x199]))
    length = draw(st.sampled_from([len(body), len(body) + 1, 0, MAX_BODY, 2**32 - 1]))
    version = draw(st.sampled_from([VERSION] * 5 + [0]))
    numbers = st.sampled_from([0, 1, 2, 3, 2**16 - 1])
    return (
        HEADER.pack(length, version, draw(st.sampled_from([0] * 5 + [1, 255])), kind, draw(numbers), draw(numbers))
        + body
    )


@given(st.lists(framed(), max_size=12), st.sampled_from(["host", "worker"]), st.data())
def test_how_a_stream_is_split_does_not_matter(frames, side, data):
    """However a stream is split into reads, it yields the same frames."""
    stream = b"".join(frames)
    whole, pieces = (running(side) for _ in range(2))
    first = taking_anything(whole, side, stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    second: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        second += taking_anything(pieces, side, stream[start:end])
    # Frames before a fault are lost with it, so the split stream may have yielded more of them.
    assert second[: len(first)] == first
    assert whole.state is pieces.state


def running(side: str) -> ProtocolConnection:
    """One side of a running conversation with a call, a stream and a request under way."""
    host, worker = pair()
    worker.receive(host.send(FrameKind.CALL, 1) + host.send(FrameKind.OPEN, 2))
    host.receive(worker.send(FrameKind.REQUEST, 3))
    return host if side == "host" else worker


def taking_anything(connection: ProtocolConnection, side: str, data: bytes) -> list[Frame]:
    if connection.state is ProtocolState.OVER:
        return []
    before = connection.state
    try:
        frames = connection.receive(data)
    except ProtocolFault:
        assert connection.state is ProtocolState.OVER
        return []
    state = before
    for frame in frames:
        assert frame.kind in SENDERS["worker" if side == "host" else "host"]
        assert len(frame.body) <= frame.kind.max_body
        state = TRANSITIONS[state][frame.kind]
    assert connection.state is state
    return frames


large = st.builds(
    lambda sizes, body: [body * size for size in sizes],
    st.lists(st.sampled_from([0, 1, LARGE_BODY - 1, LARGE_BODY, LARGE_BODY + 1, 3 * MIN_PART]), min_size=1, max_size=4),
    st.sampled_from([b"a", b"\0"]),
)


@given(large, st.data())
def test_how_large_bodies_are_split_does_not_matter(bodies, data):
    """They arrive in order and complete, as small ones do."""
    host, worker = pair()
    stream = b""
    for number, body in enumerate(bodies, 1):
        worker.receive(host.send(FrameKind.CALL, number))
        stream += worker.send(FrameKind.RESULT, number, body=body)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    taken: list[Frame] = []
    for begin, end in pairwise([0, *cuts, len(stream)]):
        if begin < end:
            taken += host.receive(stream[begin:end])
    assert [(frame.id, bytes(frame.body)) for frame in taken] == list(enumerate(bodies, 1))
    assert host.missing == HEADER.size
    assert host.partial is None
    host.receive_end()


def test_a_body_in_single_bytes_costs_no_more_memory():
    """A worker that sends a large body byte by byte doesn't make its host keep an object for each."""
    host, worker = pair()
    worker.receive(host.send(FrameKind.CALL, 1))
    data = worker.send(FrameKind.RESULT, 1, body=bytes(5 * MIN_PART))
    taken = [frame for byte in data for frame in host.receive(bytes([byte]))]
    (frame,) = taken
    assert isinstance(frame.body, LargeBody)
    assert len(frame.body.parts) <= 6
    assert bytes(frame.body) == bytes(5 * MIN_PART)


def test_a_large_body_that_is_cut_off_is_a_fault():
    """The end of the connection within a large body is a fault, as within any other frame."""
    host, worker = pair()
    worker.receive(host.send(FrameKind.CALL, 1))
    data = worker.send(FrameKind.RESULT, 1, body=bytes(2 * LARGE_BODY))
    assert host.receive(data[:-1]) == []
    with pytest.raises(ProtocolFault, match="within a frame"):
        host.receive_end()


def test_a_large_reply_without_a_call_is_a_fault():
    """Nothing of its body is stored but its size."""
    host, _ = pair()
    data = encode(Frame(FrameKind.RESULT, 1, body=bytes(2 * LARGE_BODY)))
    assert host.receive(data[:-1]) == []
    with pytest.raises(ProtocolFault, match="not under way"):
        host.receive(data[-1:])
    assert host.state is ProtocolState.OVER
