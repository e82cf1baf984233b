"""The conversation of a host and one worker as a state machine. Everything that decides what may be said is here.

Sans I/O: bytes and descriptor numbers go in, frames come out; frames go in, bytes come out. Both sides run the same
machine and see the same frames, each its own in the moment of sending. Knows no bodies: those are `messages`.

    opening ── ORDER ──> sealing ── SEALED ──> sealed ── START ──> loading ── READY ──> running
                            │ FAILED                                  │ FAILED            │
                            └──────────────> over <───────────────────┘                 STOP
                                              └──────── STOPPED, FAILED ── stopping <─────┘
"""

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, StrEnum
from typing import Literal, NamedTuple, TypeAlias

from nyx_stream.isolation.remote.wire.frames import (
    HEADER,
    LARGE,
    VERSION,
    Body,
    Frame,
    Kind,
    Pieces,
    ProtocolFault,
    decode_header,
    encode,
)

Side = Literal["host", "worker"]

LOG_RECORDS = 16
"""Log records that may be under way, not yet taken."""
MAX_ASKS = 256
"""Requests to capabilities that may be under way."""

_HEADER = HEADER.size
_IN_PIECES = frozenset({Kind.RESULT, Kind.ITEM})
"""Frames whose body, if it is large, is read in steps by those who take it."""
_pack = HEADER.pack
_unpack = HEADER.unpack_from


class ProtocolState(StrEnum):
    """Where the conversation stands."""

    OPENING = "opening"
    SEALING = "sealing"
    SEALED = "sealed"
    LOADING = "loading"
    RUNNING = "running"
    STOPPING = "stopping"
    OVER = "over"

    __hash__ = str.__hash__


def _staying(state: ProtocolState, *kinds: Kind) -> dict[Kind, ProtocolState]:
    return dict.fromkeys(kinds, state)


# What the plugin's code causes while it runs, in any state in which it does.
_ALIVE = (
    Kind.ASK, Kind.ANSWER, Kind.REFUSED, Kind.CANCEL, Kind.LOG, Kind.LOGGED, Kind.UPDATE, Kind.ENDED, Kind.CRASHED,
)  # fmt: skip
_CALLS = (Kind.CALL, Kind.OPEN, Kind.NEXT)
_REPLIES = (Kind.RESULT, Kind.ITEM, Kind.END)

TABLE: dict[ProtocolState, dict[Kind, ProtocolState]] = {
    ProtocolState.OPENING: {Kind.ORDER: ProtocolState.SEALING},
    ProtocolState.SEALING: {Kind.SEALED: ProtocolState.SEALED, Kind.FAILED: ProtocolState.OVER},
    ProtocolState.SEALED: {Kind.START: ProtocolState.LOADING},
    ProtocolState.LOADING: {
        **_staying(ProtocolState.LOADING, *_ALIVE),
        Kind.READY: ProtocolState.RUNNING,
        Kind.FAILED: ProtocolState.OVER,
        Kind.STOP: ProtocolState.STOPPING,
    },
    ProtocolState.RUNNING: {
        **_staying(ProtocolState.RUNNING, *_ALIVE, *_CALLS, *_REPLIES, Kind.FAILED),
        Kind.STOP: ProtocolState.STOPPING,
    },
    # READY: it crossed a STOP. FAILED with id 0 says how `teardown` went, and is the end.
    ProtocolState.STOPPING: {
        **_staying(ProtocolState.STOPPING, *_ALIVE, *_REPLIES, Kind.READY, Kind.FAILED, Kind.NEXT),
        Kind.STOPPED: ProtocolState.OVER,
    },
    ProtocolState.OVER: {},
}

SENDERS: dict[Side, frozenset[Kind]] = {
    "host": frozenset(
        {Kind.ORDER, Kind.START, Kind.CALL, Kind.OPEN, Kind.ANSWER, Kind.CANCEL, Kind.NEXT, Kind.STOP, Kind.UPDATE}
        | {Kind.LOGGED, Kind.REFUSED, Kind.ENDED}
    ),
    "worker": frozenset(
        {Kind.SEALED, Kind.READY, Kind.RESULT, Kind.ITEM, Kind.END, Kind.ASK, Kind.CANCEL, Kind.STOPPED, Kind.LOG}
        | {Kind.FAILED, Kind.CRASHED}
    ),
}


class _Way(Enum):
    """What a call or stream under way is waiting for."""

    RESULT = "result"
    ITEM = "item"
    """The worker makes the next item."""
    DEMAND = "demand"
    """The consumer has not asked for another item: the worker rests."""


_RESULT, _ITEM, _DEMAND = _Way  # reading a member off its class costs a tenth of what a frame does (CPython 3.11)


class ProtocolConnection:
    """One side of one conversation. After a `ProtocolFault` it is over."""

    def __init__(self, side: Side) -> None:
        self.state = ProtocolState.OPENING
        self._own = SENDERS[side]
        self._peers = SENDERS[_OTHER[side]]
        self._sends = _PASSAGES[side]
        self._takes = _PASSAGES[_OTHER[side]]
        self._buffer = bytearray()
        self.growing: tuple[int, Pieces] | None = None
        """Number and body of a large frame under way, whose header is all that is in `_buffer` then."""
        self._descriptors: deque[int] = deque()
        self._calls: dict[int, _Way] = {}
        self._asks: set[int] = set()
        self._logs = 0
        self.wanted = HEADER.size
        """Bytes that are missing from the frame under way."""

    @property
    def asking(self) -> bool:
        """Whether a request is under way: only then can descriptors come."""
        return bool(self._asks)

    def send(self, frame: Frame) -> bytes:
        """Returns the bytes of a frame. Raises `ProtocolFault` if it may not be sent now; the state is unchanged."""
        kind, number, detail, body, descriptors = frame
        passage = self._sends[self.state].get(kind)
        if passage is None or len(body) > passage.limit or len(descriptors) > passage.descriptors:
            raise self._unsendable(frame)
        if passage.check is not None:
            passage.check(self, kind, number, detail)
        elif number:
            raise ProtocolFault(f"{kind.name} has the number {number}")
        self.state = passage.following
        return _pack(len(body), VERSION, len(descriptors), kind, detail, number) + (
            body if isinstance(body, bytes) else bytes(body)
        )

    def log_fits(self) -> bool:
        """Whether a log record may be sent now."""
        return self._logs < LOG_RECORDS

    def receive(self, data: bytes, descriptors: Iterable[int] = ()) -> list[Frame]:
        """Takes bytes, and the descriptors that came with them, and returns the frames that are complete.

        Raises:
            ProtocolFault: the peer broke the protocol. Frames before the fault are lost with the connection, and
                every descriptor received and not yet handed out is in `take_descriptors`.
        """
        if descriptors:
            self._descriptors.extend(descriptors)
        large: Pieces | None = None
        if self.growing is not None:
            _, large = self.growing
            large.add(data[: self.wanted])
            if len(data) < self.wanted:
                self.wanted -= len(data)
                return []
            large.end()
            data = data[self.wanted :]
            self.growing = None
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            source = self._buffer
        frames: list[Frame] = []
        try:
            taken = self._take_frames(source, frames, large)
            if taken == len(source) and self._descriptors:
                raise ProtocolFault(f"{len(self._descriptors)} descriptors belong to no frame")
        except ProtocolFault:
            self.state = ProtocolState.OVER
            for frame in frames:
                self._descriptors.extend(frame.descriptors)
            raise
        if self._grows():
            self._buffer = bytearray(source[taken : taken + _HEADER])
        elif source is self._buffer:
            del self._buffer[:taken]
        elif taken < len(source):
            self._buffer += source[taken:]
        return frames

    def _grows(self) -> bool:
        """Whether a large frame is under way by now."""
        return self.growing is not None

    def receive_end(self) -> None:
        """The peer closed. Raises `ProtocolFault` if that cut a frame."""
        self.state = ProtocolState.OVER
        if self._buffer:
            raise ProtocolFault("the connection ended within a frame")

    def take_descriptors(self) -> tuple[int, ...]:
        """Returns the descriptors that no frame has taken. They are the caller's to close."""
        left = tuple(self._descriptors)
        self._descriptors.clear()
        return left

    def _take_frames(self, source: bytes | bytearray, frames: list[Frame], large: Pieces | None) -> int:
        """Appends the complete frames of `source` to `frames`; returns how many bytes of it they have.

        `large` is the body of the first one, of which `source` has the header only. What is there of a large one that
        is not complete goes into `growing`.
        """
        place, end = 0, len(source)
        while end - place >= _HEADER:
            length, version, count, code, detail, number = _unpack(source, place)
            passage = self._takes[self.state].get(code)
            if passage is None or version != VERSION or length > passage.limit or count > passage.descriptors:
                raise self._untakable(source, place)
            kind, _, _, check, following = passage
            begin = place + _HEADER
            if end - begin < length and large is None:
                self.wanted = length - (end - begin)
                if kind in _IN_PIECES and length > LARGE:
                    self.growing = number, Pieces()
                    self.growing[1].add(bytes(source[begin:end]))
                return place
            if count > len(self._descriptors):
                raise ProtocolFault(f"{kind.name} has {len(self._descriptors)} descriptors, not {count}")
            if check is not None:
                check(self, kind, number, detail)
            elif number:
                raise ProtocolFault(f"{kind.name} has the number {number}")
            self.state = following
            body: Body
            if large is not None:
                body, large, place = large, None, begin
            else:
                place = begin + length
                if source is self._buffer:
                    with memoryview(source) as view:  # a slice would be copied twice
                        body = view[begin:place].tobytes()
                else:
                    body = bytes(source[begin:place])
            handed = tuple(self._descriptors.popleft() for _ in range(count)) if count else ()
            frames.append(Frame(kind, number, detail, body, handed))
        self.wanted = _HEADER - (end - place)
        return place

    def _unsendable(self, frame: Frame) -> ProtocolFault:
        """Returns why a frame has no passage out."""
        if frame.kind not in self._own:
            return ProtocolFault(f"{frame.kind.name} is not this side's to send")
        encode(frame)  # raises if its size is what is wrong
        return ProtocolFault(f"{frame.kind.name} is not possible while {self.state}")

    def _untakable(self, source: bytes | bytearray, place: int) -> ProtocolFault:
        """Returns why the frame whose header stands at `place` has no passage in."""
        kind = decode_header(source, place).kind  # raises if its size, version or number is what is wrong
        if kind not in self._peers:
            return ProtocolFault(f"{kind.name} is not the peer's to send")
        return ProtocolFault(f"{kind.name} is not possible while {self.state}")

    def _opens_call(self, kind: Kind, number: int, _detail: int) -> None:
        if not number or number in self._calls:
            raise ProtocolFault(f"{kind.name}: the number {number} is in use")
        self._calls[number] = _RESULT

    def _opens_stream(self, kind: Kind, number: int, detail: int) -> None:
        self._opens_call(kind, number, detail)
        self._calls[number] = _ITEM

    def _ends_call(self, kind: Kind, number: int, _detail: int) -> None:
        if self._calls.get(number) is not _RESULT:
            raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
        del self._calls[number]

    def _ends_stream(self, kind: Kind, number: int, _detail: int) -> None:
        if self._calls.get(number) not in (_ITEM, _DEMAND):
            raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
        del self._calls[number]

    def _fails(self, kind: Kind, number: int, _detail: int) -> None:
        if number:
            if number not in self._calls:
                raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
            del self._calls[number]
        elif self.state is ProtocolState.RUNNING:
            raise ProtocolFault("a start failed that was done")

    def _sends_item(self, _kind: Kind, number: int, _detail: int) -> None:
        if self._calls.get(number) is not _ITEM:
            raise ProtocolFault(f"an item of {number} that nobody asked for")
        self._calls[number] = _DEMAND

    def _demands_item(self, _kind: Kind, number: int, _detail: int) -> None:
        way = self._calls.get(number)
        if way is _DEMAND:
            self._calls[number] = _ITEM
        elif way is not None:  # otherwise the stream ended meanwhile
            raise ProtocolFault(f"another item of {number} is under way")

    def _opens_ask(self, _kind: Kind, number: int, _detail: int) -> None:
        if not number or number in self._asks:
            raise ProtocolFault(f"ASK: the number {number} is in use")
        if len(self._asks) >= MAX_ASKS:
            raise ProtocolFault(f"more than {MAX_ASKS} requests at once")
        self._asks.add(number)

    def _ends_ask(self, kind: Kind, number: int, _detail: int) -> None:
        if number not in self._asks:
            raise ProtocolFault(f"{kind.name} for {number}, which is not under way")
        self._asks.discard(number)

    def _logs_record(self, _kind: Kind, _number: int, _detail: int) -> None:
        if self._logs >= LOG_RECORDS:
            raise ProtocolFault(f"more than {LOG_RECORDS} log records under way")
        self._logs += 1

    def _took_records(self, _kind: Kind, _number: int, detail: int) -> None:
        if detail > self._logs:
            raise ProtocolFault(f"{detail} log records taken, of {self._logs} sent")
        self._logs -= detail

    def _any_number(self, _kind: Kind, _number: int, _detail: int) -> None:
        """CANCEL, ENDED: what it names may be over already."""


_Check: TypeAlias = Callable[[ProtocolConnection, Kind, int, int], None]

_CHECKS: dict[Kind, _Check] = {
    Kind.CALL: ProtocolConnection._opens_call,
    Kind.OPEN: ProtocolConnection._opens_stream,
    Kind.RESULT: ProtocolConnection._ends_call,
    Kind.END: ProtocolConnection._ends_stream,
    Kind.FAILED: ProtocolConnection._fails,
    Kind.ITEM: ProtocolConnection._sends_item,
    Kind.NEXT: ProtocolConnection._demands_item,
    Kind.ASK: ProtocolConnection._opens_ask,
    Kind.ANSWER: ProtocolConnection._ends_ask,
    Kind.REFUSED: ProtocolConnection._ends_ask,
    Kind.LOG: ProtocolConnection._logs_record,
    Kind.LOGGED: ProtocolConnection._took_records,
    Kind.CANCEL: ProtocolConnection._any_number,
    Kind.ENDED: ProtocolConnection._any_number,
}


class _Passage(NamedTuple):
    """All that is looked at when a frame passes: one row of `TABLE`, with the bounds of its kind.

    Without a `check` its number must be 0.
    """

    kind: Kind
    limit: int
    descriptors: int
    check: _Check | None
    following: ProtocolState


_OTHER: dict[Side, Side] = {"host": "worker", "worker": "host"}

_PASSAGES: dict[Side, dict[ProtocolState, dict[int, _Passage]]] = {
    side: {
        state: {
            int(kind): _Passage(kind, kind.limit, kind.descriptors, _CHECKS.get(kind), following)
            for kind, following in row.items()
            if kind in senders
        }
        for state, row in TABLE.items()
    }
    for side, senders in SENDERS.items()
}
"""By sender, state and number of the kind: one look-up for each frame."""
