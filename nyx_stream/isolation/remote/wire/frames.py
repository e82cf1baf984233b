"""One frame as bytes: a fixed header, then a JSON body. Knows no order of frames, no sockets and no models.

    0        4         5            6      8        10   14
    | length | version | descriptors | kind | detail | id | body, `length` bytes

All numbers are big-endian and unsigned. The high byte of `kind` is the family: 1 handshake, 2 data, 3 control,
4 error. `descriptors` is how many file descriptors come with the frame (SCM_RIGHTS, with its first byte). What
`detail` means depends on the kind.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple, TypeAlias

VERSION = 1
"""Changes with every change of the protocol: host and worker are of one release, or do not talk."""

HEADER = Struct("!IBBHHI")

MAX_BODY = 16 * 2**20
"""Bytes of the largest body: arguments of a call, a result, an item of a stream. Larger data go by descriptor."""

LARGE = 8 * 1024
"""Bytes above which a body is large: it is taken and read in steps."""
PIECE = 16 * 1024

MAX_DESCRIPTORS = 8
MAX_ID = 2**32 - 1

_SMALL = 2**20
_LOG = 2**17


class Kind(IntEnum):
    """Every kind of frame. (h) is sent by the host, (w) by the worker."""

    ORDER = 0x101
    """(h) Who the plugin is and how the worker must be sealed."""
    SEALED = 0x102
    """(w) The worker is sealed; the body is its report."""
    START = 0x103
    """(h) The report was accepted: import the plugin."""
    READY = 0x104
    """(w) `setup` is done; the body lists the methods."""

    CALL = 0x201
    """(h) `detail` is the number of the method in READY, the body its arguments."""
    RESULT = 0x202
    """(w) The result of a call."""
    OPEN = 0x203
    """(h) A stream: as CALL."""
    ITEM = 0x204
    """(w) One item of a stream."""
    END = 0x205
    """(w) A stream is over."""
    ASK = 0x206
    """(w) A capability is asked to do something."""
    ANSWER = 0x207
    """(h) It was done; descriptors may come along."""

    CANCEL = 0x301
    """(h) Cancels a call or stream; (w) cancels an ASK. One that is over already is none: frames cross."""
    NEXT = 0x302
    """(h) The consumer of a stream asks for its next item; OPEN asks for the first."""
    STOP = 0x303
    """(h) Run `teardown` and end."""
    STOPPED = 0x304
    """(w) Done."""
    UPDATE = 0x305
    """(h) The grant changed."""
    LOG = 0x306
    """(w) A log record of the plugin."""
    LOGGED = 0x307
    """(h) `detail` log records were taken."""
    ENDED = 0x308
    """(h) The lease of a capability ended: `id` is the number of a narrowed one, 0: the plugin's own."""

    FAILED = 0x401
    """(w) A call or stream failed; id 0: the start, or `teardown`, did."""
    REFUSED = 0x402
    """(h) An ASK failed."""
    CRASHED = 0x403
    """(w) The plugin failed outside a call."""

    # That of `Enum` is a Python function, and every frame is looked up in several tables.
    __hash__ = int.__hash__

    @property
    def limit(self) -> int:
        """Bytes that its body may have."""
        if self in _LARGE:
            return MAX_BODY
        if self in _EMPTY:
            return 0
        return _LOG if self is Kind.LOG else _SMALL

    @property
    def descriptors(self) -> int:
        """Descriptors that may come with it."""
        return MAX_DESCRIPTORS if self is Kind.ANSWER else 0


_LARGE = frozenset({Kind.CALL, Kind.RESULT, Kind.OPEN, Kind.ITEM})
_EMPTY = frozenset({Kind.START, Kind.END, Kind.CANCEL, Kind.NEXT, Kind.STOP, Kind.STOPPED, Kind.LOGGED})

KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}


class ProtocolFault(Exception):
    """The peer sent what the protocol does not allow. That connection is over; nothing else is touched."""


class Pieces:
    """A large body that is arriving, or has arrived, in pieces: so that it can be read meanwhile, and bit by bit.

    A piece has at least `PIECE` bytes, but for the last: so a peer that sends single bytes costs no more than others.
    """

    __slots__ = ("_size", "_small", "parts", "whole")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        """What has arrived, none of it empty."""
        self.whole = False
        """Whether all of it has."""
        self._small = bytearray()
        self._size = 0

    @classmethod
    def of(cls, data: bytes) -> "Pieces":
        """Returns a body that has arrived."""
        body = cls()
        body.add(data)
        return body.end()

    def add(self, data: bytes) -> None:
        """Appends some bytes."""
        self._size += len(data)
        if not self._small and len(data) >= PIECE:
            self.parts.append(data)
            return
        self._small += data
        if len(self._small) >= PIECE:
            self._settle()

    def end(self) -> "Pieces":
        """Ends it."""
        if self._small:
            self._settle()
        self.whole = True
        return self

    def _settle(self) -> None:
        self.parts.append(bytes(self._small))
        self._small = bytearray()

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


Body: TypeAlias = bytes | Pieces


class Frame(NamedTuple):
    """One frame. `descriptors` belong to whoever holds the frame: use them or close them.

    A body is `bytes`, but for a RESULT or ITEM of more than `LARGE` bytes that arrived.
    """

    kind: Kind
    id: int = 0
    detail: int = 0
    body: Body = b""
    descriptors: tuple[int, ...] = ()


class Header(NamedTuple):
    """A header whose every field is within its bounds."""

    kind: Kind
    id: int
    detail: int
    length: int
    descriptors: int


def encode(frame: Frame) -> bytes:
    """Returns header and body. Raises `ProtocolFault` for a frame that no peer would take."""
    kind, number, detail, body, descriptors = frame
    if len(body) > kind.limit:
        raise ProtocolFault(f"a body of {len(body)} bytes is over the limit of {kind.name}, {kind.limit}")
    if len(descriptors) > kind.descriptors:
        raise ProtocolFault(f"{len(descriptors)} descriptors are too many for {kind.name}")
    return HEADER.pack(len(body), VERSION, len(descriptors), kind, detail, number) + bytes(body)


def decode_header(data: bytes | bytearray, offset: int = 0) -> Header:
    """Returns the header at `offset`, of which `HEADER.size` bytes must be there.

    Raises:
        ProtocolFault: another version, an unknown kind, a body over its limit, descriptors where none may be.
    """
    length, version, descriptors, code, detail, number = HEADER.unpack_from(data, offset)
    if version != VERSION:
        raise ProtocolFault(f"protocol version {version}, not {VERSION}")
    kind = KINDS.get(code)
    if kind is None:
        raise ProtocolFault(f"no kind of frame has the number {code:#x}")
    if length > kind.limit:
        raise ProtocolFault(f"a {kind.name} of {length} bytes is over its limit of {kind.limit}")
    if descriptors > kind.descriptors:
        raise ProtocolFault(f"{descriptors} descriptors are too many for {kind.name}")
    return Header(kind, number, detail, length, descriptors)
