"""The conversation between a host and one worker as a state machine. Does no I/O.

Theory of operation
    Bytes and descriptor numbers go in, frames come out; frames go in, bytes come out. Host and worker each hold a
    `ProtocolConnection` and apply the same checks to every frame, the sender before it is sent and the receiver before
    it is delivered, so both always agree on what is under way.

        opening ── ORDER ──> sealing ── SEALED ──> sealed ── START ──> loading ── READY ──> running
                                │ FAILED                                  │ FAILED            │
                                └──────────────> over <───────────────────┘                 STOP
                                                  └──────── STOPPED, FAILED ── stopping <─────┘

    A frame passes if all of these hold, and ends the connection otherwise:
    - `TRANSITIONS` allows its kind in the current state, and `SENDERS` allows it from that side;
    - its body and its descriptors are within the limits of its kind (`frames`);
    - its check in `_CHECKS` passes: the id of a reply must be under way, that of a new call must not; a stream sends
      one item per NEXT; a worker may have `MAX_REQUESTS` requests and `MAX_LOG_RECORDS` log records under way.

    The first two are looked up together: `_RULES` has one row for each sender, state and kind. Bodies are opaque here;
    `messages` gives them meaning. A large RESULT or ITEM is exposed as `partial` while it arrives.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

from nyx_stream.isolation.remote.wire.frames import (
    HEADER,
    LARGE_BODY,
    VERSION,
    Body,
    Frame,
    FrameKind,
    LargeBody,
    ProtocolFault,
    check_size,
)

Side = Literal["host", "worker"]

MAX_LOG_RECORDS = 16
"""Log records that may be under way, sent and not yet acknowledged."""
MAX_REQUESTS = 256
"""Requests to capabilities that may be under way."""

_HEADER_SIZE = HEADER.size
_DECODED_IN_STEPS = frozenset({FrameKind.RESULT, FrameKind.ITEM})
_pack = HEADER.pack
_unpack = HEADER.unpack_from


class ProtocolState(StrEnum):
    OPENING = "opening"
    SEALING = "sealing"
    SEALED = "sealed"
    LOADING = "loading"
    RUNNING = "running"
    STOPPING = "stopping"
    OVER = "over"

    __hash__ = str.__hash__


# Frames caused by the plugin's code, allowed in every state in which it runs.
_ALIVE = (
    FrameKind.REQUEST, FrameKind.RESPONSE, FrameKind.REQUEST_FAILED, FrameKind.CANCEL, FrameKind.LOG,
    FrameKind.LOG_ACK, FrameKind.UPDATE, FrameKind.LEASE_ENDED, FrameKind.CRASHED,
)  # fmt: skip
_REPLIES = (FrameKind.RESULT, FrameKind.ITEM, FrameKind.END, FrameKind.FAILED)

TRANSITIONS: dict[ProtocolState, dict[FrameKind, ProtocolState]] = {
    ProtocolState.OPENING: {FrameKind.ORDER: ProtocolState.SEALING},
    ProtocolState.SEALING: {FrameKind.SEALED: ProtocolState.SEALED, FrameKind.FAILED: ProtocolState.OVER},
    ProtocolState.SEALED: {FrameKind.START: ProtocolState.LOADING},
    ProtocolState.LOADING: {
        **dict.fromkeys(_ALIVE, ProtocolState.LOADING),
        FrameKind.READY: ProtocolState.RUNNING,
        FrameKind.FAILED: ProtocolState.OVER,
        FrameKind.STOP: ProtocolState.STOPPING,
    },
    ProtocolState.RUNNING: {
        **dict.fromkeys((*_ALIVE, *_REPLIES, FrameKind.CALL, FrameKind.OPEN, FrameKind.NEXT), ProtocolState.RUNNING),
        FrameKind.STOP: ProtocolState.STOPPING,
    },
    # READY may cross a STOP. FAILED with id 0 reports that `teardown` failed.
    ProtocolState.STOPPING: {
        **dict.fromkeys((*_ALIVE, *_REPLIES, FrameKind.READY, FrameKind.NEXT), ProtocolState.STOPPING),
        FrameKind.STOPPED: ProtocolState.OVER,
    },
    ProtocolState.OVER: {},
}

_HOST_SENDS = frozenset(
    {FrameKind.ORDER, FrameKind.START, FrameKind.CALL, FrameKind.OPEN, FrameKind.RESPONSE, FrameKind.CANCEL}
    | {FrameKind.NEXT, FrameKind.STOP, FrameKind.UPDATE, FrameKind.LOG_ACK, FrameKind.REQUEST_FAILED}
    | {FrameKind.LEASE_ENDED}
)
SENDERS: dict[Side, frozenset[FrameKind]] = {
    "host": _HOST_SENDS,
    "worker": frozenset(FrameKind) - _HOST_SENDS | {FrameKind.CANCEL},
}


# What a call or stream under way is waiting for: its result, its next item, or a NEXT from the consumer.
_RESULT, _ITEM, _DEMAND = range(3)


class ProtocolConnection:
    """One side of the conversation with one worker. After a `ProtocolFault` from `receive` it is over."""

    def __init__(self, side: Side) -> None:
        self.state = ProtocolState.OPENING
        self.requests: set[int] = set()
        """The requests under way. A response, and with it descriptors, can only arrive while there are some."""
        self.partial: tuple[int, LargeBody] | None = None
        """Id and body of a large frame that is arriving; `_buffer` then holds only its header."""
        self.missing = _HEADER_SIZE
        """Bytes that the frame which is arriving still lacks."""
        self._sends = SENDERS[side]
        self._outbound = _RULES[side]
        self._inbound = _RULES["worker" if side == "host" else "host"]
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._calls: dict[int, int] = {}
        self._log_records = 0

    def send(
        self, kind: FrameKind, number: int = 0, detail: int = 0, body: Body = b"", descriptors: tuple[int, ...] = ()
    ) -> bytes:
        """Returns the bytes of a frame. Raises `ProtocolFault`, without any other effect, if it may not be sent now."""
        length, count = len(body), len(descriptors)
        rule = self._outbound[self.state].get(kind)
        if rule is None or length > rule.max_body or count > rule.max_descriptors:
            if kind in self._sends:
                check_size(kind, length, count)
                raise ProtocolFault(f"{kind.name} is not possible while {self.state}")
            raise ProtocolFault(f"{kind.name} is not this side's to send")
        rule.check(self, kind, number, detail)
        self.state = rule.next_state
        data = _pack(length, VERSION, count, kind, detail, number)
        return data + body if type(body) is bytes else data + bytes(body)

    def can_log(self) -> bool:
        """Whether another log record may be sent now."""
        return self._log_records < MAX_LOG_RECORDS

    def receive(self, data: bytes, descriptors: Iterable[int] = ()) -> list[Frame]:
        """Takes bytes, and the descriptors that came with them, and returns the frames that are now complete.

        Raises:
            ProtocolFault: the peer violated the protocol. Frames before the fault are lost with the connection; every
                descriptor received and not returned with a frame remains in `take_descriptors`.
        """
        self._descriptors += descriptors
        source: bytes | bytearray = data
        large: LargeBody | None = None
        if self._buffer:
            source, large = self._continue_frame(data)
            if large is not None and not large.complete:
                return []
        frames: list[Frame] = []
        position, end = 0, len(source)
        try:
            while end - position >= _HEADER_SIZE:
                length, version, count, code, detail, number = _unpack(source, position)
                rule = self._inbound[self.state].get(code)
                if rule is None or version != VERSION or length > rule.max_body or count > rule.max_descriptors:
                    raise self._rejected(source, position)
                body_start = position + _HEADER_SIZE
                body_end = body_start + (length if large is None else 0)
                if body_end > end:
                    break
                if count > len(self._descriptors):
                    raise ProtocolFault(f"{rule.kind.name} has {len(self._descriptors)} descriptors, not {count}")
                rule.check(self, rule.kind, number, detail)
                self.state = rule.next_state
                body: Body = bytes(memoryview(source)[body_start:body_end]) if large is None else large
                frames.append(Frame(rule.kind, number, detail, body, tuple(self._descriptors[:count])))
                del self._descriptors[:count]
                position, large = body_end, None
            if self._descriptors and position == end:
                raise ProtocolFault(f"{len(self._descriptors)} descriptors belong to no frame")
        except ProtocolFault:
            self.state = ProtocolState.OVER
            for frame in frames:
                self._descriptors += frame.descriptors
            raise
        if position == end:
            self.missing = _HEADER_SIZE
            self._buffer.clear()
        else:
            self._keep_rest(source, position)
        return frames

    def receive_end(self) -> None:
        """Notes that the peer closed the connection. Raises `ProtocolFault` if that cut a frame."""
        self.state = ProtocolState.OVER
        if self._buffer:
            raise ProtocolFault("the connection ended within a frame")

    def take_descriptors(self) -> tuple[int, ...]:
        """Returns the descriptors that belong to no returned frame. The caller closes them."""
        left, self._descriptors = tuple(self._descriptors), []
        return left

    def _continue_frame(self, data: bytes) -> tuple[bytearray, LargeBody | None]:
        """Returns what is left of the last `data` with more of it, and the large body that this belongs to, if any.

        If the body is still incomplete, all of `data` was added to it.
        """
        if self.partial is None:
            self._buffer += data
            return self._buffer, None
        _, large = self.partial
        large.add(data[: self.missing])
        if len(data) < self.missing:
            self.missing -= len(data)
        else:
            large.finish()
            self.partial = None
            self._buffer += data[self.missing :]
        return self._buffer, large

    def _keep_rest(self, source: bytes | bytearray, position: int) -> None:
        """Keeps the frame at `position`, which is incomplete."""
        body_start = position + _HEADER_SIZE
        self.missing = body_start - len(source)
        if self.missing <= 0:
            length, _, _, code, _, number = _unpack(source, position)
            self.missing += length
            if length > LARGE_BODY and code in _DECODED_IN_STEPS:
                self.partial = number, LargeBody()
                self.partial[1].add(bytes(source[body_start:]))
                self._buffer = bytearray(source[position:body_start])
                return
        if source is self._buffer:
            del self._buffer[:position]
        else:
            self._buffer += source[position:]

    def _rejected(self, source: bytes | bytearray, position: int) -> ProtocolFault:
        """Returns why no rule admits the frame whose header starts at `position`."""
        length, version, descriptors, code, _, _ = _unpack(source, position)
        if version != VERSION:
            return ProtocolFault(f"protocol version {version}, not {VERSION}")
        try:
            kind = FrameKind(code)
        except ValueError:
            return ProtocolFault(f"unknown kind of frame: {code:#x}")
        check_size(kind, length, descriptors)  # raises if the size is the reason
        if kind in self._sends and kind is not FrameKind.CANCEL:
            return ProtocolFault(f"{kind.name} is not the peer's to send")
        return ProtocolFault(f"{kind.name} is not possible while {self.state}")

    # The checks of single kinds, `_CHECKS`. Each raises `ProtocolFault`, or notes what the frame begins or ends.

    def _check_no_number(self, kind: FrameKind, number: int, _detail: int) -> None:
        if number:
            raise ProtocolFault(f"{kind.name} has the number {number}")

    def _check_any_number(self, _kind: FrameKind, _number: int, _detail: int) -> None:
        """CANCEL, LEASE_ENDED: what the frame names may already be over."""

    def _begin_call(self, kind: FrameKind, number: int, _detail: int) -> None:
        if not number or number in self._calls:
            raise ProtocolFault(f"{kind.name}: the number {number} is in use")
        self._calls[number] = _RESULT if kind is FrameKind.CALL else _ITEM

    def _end_call(self, kind: FrameKind, number: int, _detail: int) -> None:
        state = self._calls.get(number)
        if state is None or (state == _RESULT) is not (kind is FrameKind.RESULT):
            raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
        del self._calls[number]

    def _fail_call(self, kind: FrameKind, number: int, _detail: int) -> None:
        if number:
            if self._calls.pop(number, None) is None:
                raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
        elif self.state is ProtocolState.RUNNING:
            raise ProtocolFault("FAILED for a start that has already succeeded")

    def _send_item(self, _kind: FrameKind, number: int, _detail: int) -> None:
        if self._calls.get(number) != _ITEM:
            raise ProtocolFault(f"an item of {number} that was not requested")
        self._calls[number] = _DEMAND

    def _demand_item(self, _kind: FrameKind, number: int, _detail: int) -> None:
        state = self._calls.get(number)
        if state == _DEMAND:
            self._calls[number] = _ITEM
        elif state is not None:  # otherwise the stream has ended meanwhile
            raise ProtocolFault(f"another item of {number} is under way")

    def _begin_request(self, _kind: FrameKind, number: int, _detail: int) -> None:
        requests = self.requests
        if not number or number in requests:
            raise ProtocolFault(f"REQUEST: the number {number} is in use")
        if len(requests) >= MAX_REQUESTS:
            raise ProtocolFault(f"more than {MAX_REQUESTS} requests at once")
        requests.add(number)

    def _end_request(self, kind: FrameKind, number: int, _detail: int) -> None:
        if number not in self.requests:
            raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
        self.requests.discard(number)

    def _count_log_record(self, _kind: FrameKind, _number: int, _detail: int) -> None:
        if self._log_records >= MAX_LOG_RECORDS:
            raise ProtocolFault(f"more than {MAX_LOG_RECORDS} log records under way")
        self._log_records += 1

    def _acknowledge_log_records(self, _kind: FrameKind, _number: int, detail: int) -> None:
        if detail > self._log_records:
            raise ProtocolFault(f"{detail} log records acknowledged, of {self._log_records} sent")
        self._log_records -= detail


_Check: TypeAlias = Callable[[ProtocolConnection, FrameKind, int, int], None]

_CHECKS: dict[FrameKind, _Check] = {
    FrameKind.CALL: ProtocolConnection._begin_call,
    FrameKind.OPEN: ProtocolConnection._begin_call,
    FrameKind.RESULT: ProtocolConnection._end_call,
    FrameKind.END: ProtocolConnection._end_call,
    FrameKind.FAILED: ProtocolConnection._fail_call,
    FrameKind.ITEM: ProtocolConnection._send_item,
    FrameKind.NEXT: ProtocolConnection._demand_item,
    FrameKind.REQUEST: ProtocolConnection._begin_request,
    FrameKind.RESPONSE: ProtocolConnection._end_request,
    FrameKind.REQUEST_FAILED: ProtocolConnection._end_request,
    FrameKind.LOG: ProtocolConnection._count_log_record,
    FrameKind.LOG_ACK: ProtocolConnection._acknowledge_log_records,
    FrameKind.CANCEL: ProtocolConnection._check_any_number,
    FrameKind.LEASE_ENDED: ProtocolConnection._check_any_number,
}


class _FrameRule(NamedTuple):
    """What a frame of one kind must satisfy in one state, and the state that follows."""

    kind: FrameKind
    max_body: int
    max_descriptors: int
    check: _Check
    next_state: ProtocolState


_RULES: dict[Side, dict[ProtocolState, dict[int, _FrameRule]]] = {
    side: {
        state: {
            int(kind): _FrameRule(
                kind, kind.max_body, kind.max_descriptors, _CHECKS.get(kind, ProtocolConnection._check_no_number), after
            )
            for kind, after in row.items()
            if kind in senders
        }
        for state, row in TRANSITIONS.items()
    }
    for side, senders in SENDERS.items()
}
"""By sender, state and number of the kind: one lookup for each frame."""
