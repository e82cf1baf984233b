"""What the bodies of frames mean: pydantic models, frozen, that refuse fields they do not know.

CALL, OPEN, RESULT and ITEM have no model here: their bodies are the JSON of the arguments or of the value, validated by
the annotations of the method. Nothing is pickled. Knows no sockets.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nyx_core.sandbox import Confinement
from nyx_stream.errors import FilesystemDenied, LimitExceeded, NetworkDenied, NyxError, Revoked, SandboxDenied
from nyx_stream.isolation.remote.wire.frames import Frame, ProtocolFault

_Model = TypeVar("_Model", bound="Message")

_LONGEST = 16 * 1024
"""Characters of a text in an error that are kept."""

Text = Annotated[str, Field(max_length=_LONGEST)]


class Message(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def encode(self) -> bytes:
        """Returns the body."""
        return self.__pydantic_serializer__.to_json(self)


def decode(model: type[_Model], frame: Frame) -> _Model:
    """Returns the body of a frame as `model`. Raises `ProtocolFault` if it is none."""
    try:
        return model.model_validate_json(bytes(frame.body))
    except ValidationError as error:
        raise ProtocolFault(
            f"the body of {frame.kind.name} is no {model.__name__}: {error.error_count()} faults"
        ) from None


class Order(Message):
    """ORDER: who the plugin is, where its code lies (as in `seam.PluginSource`), and how the worker is to be sealed.

    `memory` is in bytes, above what the worker uses when it is sealed; `confinement` says all the rest.
    """

    plugin: str
    entry: str
    folder: str
    root: str
    names: frozenset[str] | None
    places: dict[str, str]
    env: dict[str, str]
    confinement: Confinement
    memory: int
    setup_timeout: float
    digests: dict[str, str] | None = None


class Sealed(Message):
    """SEALED: what holds now. `report` is `SandboxReport.to_dict()`, `baseline` the bytes in use before the limit."""

    report: dict[str, Any]
    baseline: int


class MethodFace(Message):
    """One exported method as the host sees it. `returns` describes the type of the result, or of an item."""

    name: Annotated[str, Field(max_length=256)]
    stream: bool
    returns: JsonValue = None


class Ready(Message):
    """READY: the exported methods; their places in the list are their numbers."""

    methods: Annotated[list[MethodFace], Field(max_length=4096)]


class Ask(Message):
    """ASK: `action` and `arguments` mean what the capability's handler and proxy agree on.

    `narrowed` is the number of a narrowed capability, as the host gave it out on this connection; 0: the plugin's own.

    Any JSON: the type would say it, but pydantic checks it in Python, for each value of what it has just parsed.
    """

    capability: Annotated[str, Field(max_length=64)]
    action: Annotated[str, Field(max_length=64)]
    arguments: dict[str, Any]
    narrowed: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] = 0


class AskResult(Message):
    """ANSWER: the value, any JSON; descriptors come with the frame."""

    value: Any = None


class Update(Message):
    """UPDATE: the environment of the new grant."""

    env: dict[str, str]


class LogRecord(Message):
    """LOG: one record of the plugin's logger; `level` as in `logging`."""

    level: Annotated[int, Field(ge=0, le=100)]
    message: Text
    trace: Annotated[str, Field(max_length=64 * 1024)] = ""


Reason = Literal[
    "load", "setup", "call", "arguments", "result", "denied", "limit", "os", "other",
]  # fmt: skip

_DENIALS: dict[str, type[SandboxDenied]] = {
    kind.__name__: kind for kind in (SandboxDenied, NetworkDenied, FilesystemDenied, Revoked)
}


class Denial(Message):
    """A `SandboxDenied` as values, but for the plugin: the connection says whose it is."""

    capability: Text
    action: Text
    target: Text
    rule: Text | None
    reason: Text
    hint: Text


class RemoteFault(Message):
    """FAILED, REFUSED, CRASHED: an error as values.

    `name` is the class of the error, `message` its text. Beside that: `denial` if it is a denial, `limit` and `allowed`
    if a limit was exceeded, `errno` and `filename` if it is an `OSError`, `trace` the traceback where there is one.
    """

    reason: Reason
    name: Annotated[str, Field(max_length=256)] = ""
    message: Text = ""
    trace: Annotated[str, Field(max_length=64 * 1024)] = ""
    denial: Denial | None = None
    limit: Text = ""
    allowed: int = 0
    errno: int = 0
    filename: Text = ""


class Ended(Message):
    """ENDED: of which capability, and what whoever goes on using it is to be told."""

    capability: Annotated[str, Field(max_length=64)]
    fault: RemoteFault


class CapabilityError(NyxError):
    """A capability failed at the host with an error that has no class of its own here: `name` is that class."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        self.message = message
        super().__init__(f"{name}: {message}")


def fault_of(error: BaseException, *, reason: Reason = "other", trace: str = "") -> RemoteFault:
    """Returns an error as values: denials, limits and `OSError` as themselves, any other with `reason`."""
    name, message = type(error).__name__, _text_of(error)
    if isinstance(error, CapabilityError):
        name, message = error.name, text(error.message)
    if isinstance(error, SandboxDenied):
        return RemoteFault(
            reason="denied", name=_denial_class(error), message=message, denial=_denial(error), trace=trace
        )
    if isinstance(error, LimitExceeded):
        return RemoteFault(
            reason="limit", name=name, message=text(error.detail), limit=error.limit, allowed=error.allowed, trace=trace
        )
    if reason == "other" and isinstance(error, OSError) and error.errno is not None:
        filename = text(error.filename) if isinstance(error.filename, str) else ""
        reached = text(error.strerror or "")
        return RemoteFault(reason="os", name=name, message=reached, errno=error.errno, filename=filename, trace=trace)
    return RemoteFault(reason=reason, name=name[:256], message=message, trace=trace)


def error_of(fault: RemoteFault, plugin: str) -> Exception:
    """Returns the error that a fault of reason denied, limit, os or other stands for.

    A denial, a `LimitExceeded` and an `OSError` come back as themselves, anything else as `CapabilityError`.
    """
    if fault.denial is not None:
        kind = _DENIALS.get(fault.name, SandboxDenied)
        return kind(plugin=plugin, **fault.denial.model_dump())
    if fault.reason == "limit":
        return LimitExceeded(plugin=plugin, limit=fault.limit, allowed=fault.allowed, detail=fault.message)
    if fault.reason == "os":
        return OSError(fault.errno, fault.message, *([fault.filename] if fault.filename else []))
    return CapabilityError(fault.name, fault.message)


def _denial_class(error: SandboxDenied) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _DENIALS), SandboxDenied.__name__)


def _denial(error: SandboxDenied) -> Denial:
    return Denial(
        capability=text(error.capability),
        action=text(error.action),
        target=text(error.target),
        rule=None if error.rule is None else text(error.rule),
        reason=text(error.reason),
        hint=text(error.hint),
    )


def _text_of(error: BaseException) -> str:
    try:
        return text(str(error))
    except Exception:  # its `__str__` may be a plugin's
        return "its message cannot be read"


def text(given: str) -> str:
    """Returns `given` as a `Text`: cut, and without the lone surrogates that os.fsdecode makes, which are no JSON."""
    return given[:_LONGEST].encode("utf-8", "backslashreplace").decode("utf-8")[:_LONGEST]
