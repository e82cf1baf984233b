"""One frame as bytes: a fixed header, then a JSON body.

    0        4         5            6      8        10   14
    | length | version | descriptors | kind | detail | id | body, `length` bytes

All numbers are big-endian and unsigned. The high byte of `kind` is its family: 1 handshake, 2 data, 3 control,
4 error. `descriptors` counts the file descriptors that travel with the frame's first byte (SCM_RIGHTS, unix(7)). The
meaning of `detail` depends on the kind. `protocol` has the order of frames, `messages` their bodies.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple, TypeAlias

VERSION = 1
"""Changes with every change of the protocol: host and worker must come from the same release."""

HEADER = Struct("!IBBHHI")

MAX_BODY = 16 * 2**20
"""Bytes of the largest body: the arguments of a call, a result, an item. Larger data travels through a descriptor."""

LARGE_BODY = 8 * 1024
"""Bytes above which the body of a RESULT or ITEM is received and decoded in steps."""
MIN_PART = 16 * 1024

MAX_DESCRIPTORS = 8

_MAX_MESSAGE = 2**20
_MAX_LOG = 2**17


class FrameKind(IntEnum):
    """Every kind of frame. (h) is sent by the host, (w) by the worker."""

    ORDER = 0x101  # (h) Names the plugin and how the worker must seal itself.
    SEALED = 0x102  # (w) The worker is sealed; the body is its report.
    START = 0x103  # (h) The report was accepted: import the plugin.
    READY = 0x104  # (w) `setup` has finished; the body lists the methods.

    CALL = 0x201  # (h) Calls a method: `detail` is its number in READY, the body its arguments.
    RESULT = 0x202  # (w) The result of a call.
    OPEN = 0x203  # (h) Opens a stream; same fields as CALL.
    ITEM = 0x204  # (w) One item of a stream.
    END = 0x205  # (w) The stream is exhausted.
    REQUEST = 0x206  # (w) Requests an action of a capability.
    RESPONSE = 0x207  # (h) The result of a REQUEST; may carry descriptors.

    CANCEL = 0x301  # (h) Cancels a call or stream; (w) a REQUEST. Ignored if that has finished: frames can cross.
    NEXT = 0x302  # (h) Requests the next item of a stream; OPEN requests the first.
    STOP = 0x303  # (h) Run `teardown` and exit.
    STOPPED = 0x304  # (w) `teardown` has finished.
    UPDATE = 0x305  # (h) The grant changed.
    LOG = 0x306  # (w) A log record of the plugin.
    LOG_ACK = 0x307  # (h) `detail` log records were processed.
    LEASE_ENDED = 0x308  # (h) A capability's lease ended: the attenuated one numbered `id`, or the plugin's own (0).

    FAILED = 0x401  # (w) A call or stream failed. With id 0: loading or `teardown` failed.
    REQUEST_FAILED = 0x402  # (h) A REQUEST failed.
    CRASHED = 0x403  # (w) The plugin failed outside a call.

    # `Enum.__hash__` is a Python function, and every frame is looked up in several tables.
    __hash__ = int.__hash__

    @property
    def max_body(self) -> int:
        """The largest allowed body, in bytes."""
        if self in _CARRY_VALUES:
            return MAX_BODY
        if self in _EMPTY:
            return 0
        return _MAX_LOG if self is FrameKind.LOG else _MAX_MESSAGE

    @property
    def max_descriptors(self) -> int:
        """How many descriptors may travel with it."""
        return MAX_DESCRIPTORS if self is FrameKind.RESPONSE else 0


_CARRY_VALUES = frozenset({FrameKind.CALL, FrameKind.RESULT, FrameKind.OPEN, FrameKind.ITEM})
_EMPTY = frozenset(
    {FrameKind.START, FrameKind.END, FrameKind.CANCEL, FrameKind.NEXT, FrameKind.STOP, FrameKind.STOPPED}
    | {FrameKind.LOG_ACK}
)


class ProtocolFault(Exception):
    """The peer violated the protocol. The connection ends; nothing else is affected."""


class LargeBody:
    """A large body in parts, which can be decoded while more of it arrives.

    Every part but the last has at least `MIN_PART` bytes, so a peer that sends single bytes doesn't make its receiver
    keep an object for each.
    """

    __slots__ = ("_small", "complete", "parts")

    def __init__(self, data: bytes = b"") -> None:
        self.parts: list[bytes] = []
        """What has arrived; no part is empty."""
        self.complete = False
        self._small = bytearray()
        if data:
            self.add(data)
            self.finish()

    def add(self, data: bytes) -> None:
        if not self._small and len(data) >= MIN_PART:
            self.parts.append(data)
            return
        self._small += data
        if len(self._small) >= MIN_PART:
            self._flush()

    def finish(self) -> None:
        if self._small:
            self._flush()
        self.complete = True

    def _flush(self) -> None:
        self.parts.append(bytes(self._small))
        self._small = bytearray()

    def __len__(self) -> int:
        return sum(map(len, self.parts)) + len(self._small)

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


Body: TypeAlias = bytes | LargeBody


class Frame(NamedTuple):
    """One frame. Its receiver owns the `descriptors` and must use or close them.

    A received body is `bytes`, or a `LargeBody` for a RESULT or ITEM of more than `LARGE_BODY` bytes.
    """

    kind: FrameKind
    id: int = 0
    detail: int = 0
    body: Body = b""
    descriptors: tuple[int, ...] = ()


def encode(frame: Frame) -> bytes:
    """Returns header and body. Raises `ProtocolFault` for a body or descriptors over the limit of the kind."""
    kind, number, detail, body, descriptors = frame
    check_size(kind, len(body), len(descriptors))
    return HEADER.pack(len(body), VERSION, len(descriptors), kind, detail, number) + bytes(body)


def check_size(kind: FrameKind, length: int, descriptors: int) -> None:
    """Raises `ProtocolFault` for a body of `length` bytes, or a number of descriptors, over the limit of `kind`."""
    if length > kind.max_body:
        raise ProtocolFault(f"a {kind.name} of {length} bytes is over its limit of {kind.max_body}")
    if descriptors > kind.max_descriptors:
        raise ProtocolFault(f"{descriptors} descriptors are too many for {kind.name}")
