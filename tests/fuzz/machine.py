"""Fuzz target `machine`: frames, their order and their bodies, on both sides, without socket and event loop.

Whatever is received becomes frames that the table allows, each with a body that is a message or a fault; or a
`ProtocolFault`, after which the conversation is over. No descriptor is lost.
"""

from contextlib import suppress

from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    CapabilityRequest,
    CapabilityResponse,
    LogRecord,
    Message,
    Order,
    Ready,
    RemoteFault,
    Sealed,
    Update,
    decode,
    error_of,
)
from nyx_stream.isolation.remote.wire.protocol import SENDERS, TRANSITIONS, ProtocolConnection, ProtocolState
from nyx_stream.isolation.remote.wire.types import decoder
from tests.fuzz.script import Script

MODELS: dict[FrameKind, type[Message]] = {
    FrameKind.ORDER: Order,
    FrameKind.SEALED: Sealed,
    FrameKind.READY: Ready,
    FrameKind.REQUEST: CapabilityRequest,
    FrameKind.RESPONSE: CapabilityResponse,
    FrameKind.UPDATE: Update,
    FrameKind.LOG: LogRecord,
    FrameKind.FAILED: RemoteFault,
    FrameKind.REQUEST_FAILED: RemoteFault,
    FrameKind.CRASHED: RemoteFault,
}
STATES = (
    ProtocolState.OPENING,
    ProtocolState.SEALING,
    ProtocolState.SEALED,
    ProtocolState.LOADING,
    ProtocolState.RUNNING,
    ProtocolState.STOPPING,
)
HANDSHAKE = (FrameKind.ORDER, FrameKind.SEALED, FrameKind.START, FrameKind.READY)


def conversation(state: ProtocolState) -> dict[str, ProtocolConnection]:
    """Both sides in a state; from `RUNNING` on with a call, a stream, a request and log records under way."""
    sides = {"host": ProtocolConnection("host"), "worker": ProtocolConnection("worker")}

    def say(speaker: str, kind: FrameKind, number: int = 0) -> None:
        data = sides[speaker].send(kind, number)
        sides["worker" if speaker == "host" else "host"].receive(data)

    for place, kind in enumerate(HANDSHAKE):
        if sides["host"].state is state:
            return sides
        say(("host", "worker")[place % 2], kind)
    for speaker, kind, number in (
        ("host", FrameKind.CALL, 1),
        ("host", FrameKind.OPEN, 2),
        ("worker", FrameKind.REQUEST, 3),
    ):
        say(speaker, kind, number)
    say("worker", FrameKind.LOG)
    if state is ProtocolState.STOPPING:
        say("host", FrameKind.STOP)
    return sides


def consume(data: bytes) -> None:
    """Runs one script. Raises `AssertionError`, or what must not have been raised."""
    script = Script(data)
    side = ("host", "worker")[script.number(2)]
    connection = conversation(STATES[script.number(len(STATES))])[side]
    given: list[int] = []
    handed: list[int] = []
    while script.left and connection.state is not ProtocolState.OVER:
        descriptors = range(len(given), len(given) + (script.number(12) if script.chance(4) else 0))
        given += descriptors
        before = connection.state
        try:
            frames = connection.receive(script.frame(), descriptors)
        except ProtocolFault:
            assert connection.state is ProtocolState.OVER
            break
        for frame in frames:
            assert frame.kind in SENDERS["worker" if side == "host" else "host"]
            assert len(frame.body) <= frame.kind.max_body
            before = TRANSITIONS[before][frame.kind]
            handed += frame.descriptors
            decode_body(frame)
        assert connection.state is before
    else:
        with suppress(ProtocolFault):
            connection.receive_end()
    assert connection.state is ProtocolState.OVER
    assert sorted([*handed, *connection.take_descriptors()]) == given


def decode_body(frame: Frame) -> None:
    """Decodes a body as its receiver does, and what the receiver makes of it."""
    model = MODELS.get(frame.kind)
    if model is None:
        return
    try:
        message = decode(model, frame)
    except ProtocolFault:
        return
    message.encode()
    if isinstance(message, RemoteFault):
        str(error_of(message, "p"))
    if isinstance(message, Ready):
        for face in message.methods:
            decode_results(face.returns)


def decode_results(description: object) -> None:
    """Builds the decoder of a described type, and decodes some JSON."""
    try:
        decode_result = decoder(description)
    except ProtocolFault:
        return
    for text in (b"null", b"1", b'"x"', b"[[], [1]]", b'{"a": {}}', b"[" * 300, b"1e999"):
        with suppress(ValueError):
            decode_result(text)
