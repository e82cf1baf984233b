"""The bodies of frames as pydantic models: frozen, and strict about unknown fields. Nothing is pickled.

CALL, OPEN, RESULT and ITEM have no model: their bodies are the JSON of the arguments or of the value, validated
against the annotations of the method.
"""

import base64
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from nyx_core.sandbox import Confinement
from nyx_stream.errors import FilesystemDenied, LimitExceeded, NetworkDenied, NyxError, Revoked, SandboxDenied
from nyx_stream.isolation.remote.wire.frames import Frame, ProtocolFault

_Model = TypeVar("_Model", bound="Message")

_MAX_TEXT = 16 * 1024
"""Characters of a text in an error that are kept."""
_MAX_TRACE = 64 * 1024

MAX_INLINE = 64 * 1024
"""Bytes that still travel inside a message; more of them go through a body stream."""
MAX_PASSED_DESCRIPTORS = 32
"""Descriptors of bodies, whole files and listings that may be in flight at once, besides what a grant counts."""

NARROW = "narrow"
"""The action of every capability that can be attenuated."""
MAX_NARROWED = 256
"""Attenuated capabilities that a worker may hold at once."""
MAX_RULES = 32
"""Rules, or prefixes, of an attenuated capability and of those above it: each request is checked against all."""
MAX_RULE_LENGTH = 8192
"""Characters of one such rule."""

Text = Annotated[str, Field(max_length=_MAX_TEXT)]


class Message(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def encode(self) -> bytes:
        """Returns the body."""
        return self.__pydantic_serializer__.to_json(self)


def decode(model: type[_Model], frame: Frame) -> _Model:
    """Returns the body of a frame as `model`. Raises `ProtocolFault` if it doesn't validate."""
    try:
        message: _Model = model.__pydantic_validator__.validate_json(bytes(frame.body))
    except ValidationError as error:
        raise ProtocolFault(
            f"the body of {frame.kind.name} is not a valid {model.__name__}: {error.error_count()} errors"
        ) from None
    return message


class Order(Message):
    """ORDER: the plugin, where its code is (as in `PluginSource`), and how the worker must seal itself.

    `memory` is in bytes, on top of what the worker uses when it is sealed; `confinement` has everything else.
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
    """SEALED: `report` is `SandboxReport.to_dict()`, `baseline` the bytes in use before the memory limit was set."""

    report: dict[str, Any]
    baseline: int


class MethodDescription(Message):
    """One exported method. `returns` describes the type of the result, or of an item (see `types`)."""

    name: Annotated[str, Field(max_length=256)]
    stream: bool
    returns: JsonValue = None


class Ready(Message):
    """READY: the exported methods. Their indexes are their numbers in CALL and OPEN."""

    methods: Annotated[list[MethodDescription], Field(max_length=4096)]


class CapabilityRequest(Message):
    """REQUEST: the two bindings of a capability define what `action` and `arguments` mean.

    `narrowed` is the number of an attenuated capability, as the host assigned it on this connection, or 0 for the
    plugin's own.
    """

    capability: Annotated[str, Field(max_length=64)]
    action: Annotated[str, Field(max_length=64)]
    # Any JSON. `JsonValue` would say so, but pydantic validates it in Python, value by value.
    arguments: dict[str, Any]
    narrowed: Annotated[int, Field(ge=0, le=2**32 - 1, strict=True)] = 0


class CapabilityResponse(Message):
    """RESPONSE: any JSON value. Descriptors travel with the frame."""

    value: Any = None


class Arguments(Message):
    """Base of the arguments of an action: exact types, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants")


class Update(Message):
    """UPDATE: the environment of the new grant."""

    env: dict[str, str]


class LogRecord(Message):
    """LOG: one record of the plugin's logger; `level` as in `logging`."""

    level: Annotated[int, Field(ge=0, le=100)]
    message: Text
    trace: Annotated[str, Field(max_length=_MAX_TRACE)] = ""


Reason = Literal["load", "setup", "call", "arguments", "result", "denied", "limit", "os", "other"]

_DENIALS: dict[str, type[SandboxDenied]] = {
    kind.__name__: kind for kind in (SandboxDenied, NetworkDenied, FilesystemDenied, Revoked)
}


class Denial(Message):
    """The fields of a `SandboxDenied`. The plugin is missing: each connection belongs to one."""

    capability: Text
    action: Text
    target: Text
    rule: Text | None
    reason: Text
    hint: Text


class RemoteFault(Message):
    """FAILED, REQUEST_FAILED, CRASHED: an error as values.

    `name` is the class of the error, `message` its text, `trace` its traceback where there is one. A denial has
    `denial`, an exceeded limit `limit` and `allowed`, an `OSError` has `errno` and `filename`.
    """

    reason: Reason
    name: Annotated[str, Field(max_length=256)] = ""
    message: Text = ""
    trace: Annotated[str, Field(max_length=_MAX_TRACE)] = ""
    denial: Denial | None = None
    limit: Text = ""
    allowed: int = 0
    errno: int = 0
    filename: Text = ""


class LeaseEnded(Message):
    """LEASE_ENDED: the capability, and the error that its later uses raise."""

    capability: Annotated[str, Field(max_length=64)]
    fault: RemoteFault


class CapabilityError(NyxError):
    """A capability failed at the host with an error that isn't reproduced here: `name` is the class of that error."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        self.message = message
        super().__init__(f"{name}: {message}")


def fault_of(error: BaseException, *, reason: Reason = "other", trace: str = "") -> RemoteFault:
    """Returns an error as values: denials, limits and `OSError` with their own reason, any other with `reason`."""
    name, message = type(error).__name__, _message_of(error)
    if isinstance(error, CapabilityError):
        name, message = error.name, text(error.message)
    if isinstance(error, SandboxDenied):
        name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _DENIALS), "SandboxDenied")
        fields = {field: getattr(error, field) for field in Denial.model_fields}
        denial = Denial.model_validate(
            {field: None if value is None else text(value) for field, value in fields.items()}
        )
        return RemoteFault(reason="denied", name=name, message=message, denial=denial, trace=trace)
    if isinstance(error, LimitExceeded):
        return RemoteFault(
            reason="limit", name=name, message=text(error.detail), limit=error.limit, allowed=error.allowed, trace=trace
        )
    if reason == "other" and isinstance(error, OSError) and error.errno is not None:
        filename = text(error.filename) if isinstance(error.filename, str) else ""
        message = text(error.strerror or "")
        return RemoteFault(reason="os", name=name, message=message, errno=error.errno, filename=filename, trace=trace)
    return RemoteFault(reason=reason, name=name[:256], message=message, trace=trace)


def error_of(fault: RemoteFault, plugin: str) -> Exception:
    """Returns the error that a fault with reason denied, limit, os or other describes.

    It is a `SandboxDenied`, `LimitExceeded` or `OSError`, and a `CapabilityError` for anything else.
    """
    if fault.denial is not None:
        kind = _DENIALS.get(fault.name, SandboxDenied)
        return kind(plugin=plugin, **fault.denial.model_dump())
    if fault.reason == "limit":
        return LimitExceeded(plugin=plugin, limit=fault.limit, allowed=fault.allowed, detail=fault.message)
    if fault.reason == "os":
        return OSError(fault.errno, fault.message, *([fault.filename] if fault.filename else []))
    return CapabilityError(fault.name, fault.message)


def _message_of(error: BaseException) -> str:
    try:
        return text(str(error))
    except Exception:  # `__str__` may be the plugin's code
        return "its message cannot be read"


def text(given: str) -> str:
    """Returns `given` as a `Text`: truncated, with the lone surrogates of `os.fsdecode` escaped, which JSON lacks."""
    return given[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")[:_MAX_TEXT]


def pack(data: bytes) -> str:
    """Returns bytes as text: base64, RFC 4648, section 4."""
    return base64.b64encode(data).decode("ascii")


def unpack(value: Any) -> bytes:
    """Returns the bytes of `pack`. Raises ValueError for anything else."""
    if type(value) is not str:
        raise ValueError("not text")
    return base64.b64decode(value, validate=True)


def pack_path(path: str) -> str:
    """Returns a path as JSON text. The lone surrogates of a name that isn't UTF-8 survive, which JSON itself lacks."""
    return path.encode("utf-8", "surrogatepass").decode("latin-1")


def unpack_path(value: Any) -> str:
    """Returns the path of `pack_path`. Raises ValueError for anything else."""
    if type(value) is not str:
        raise ValueError("not text")
    return value.encode("latin-1").decode("utf-8", "surrogatepass")


Packed = Annotated[bytes, BeforeValidator(unpack), Field(max_length=MAX_INLINE)]
"""Bytes inside a message."""

PathText = Annotated[str, BeforeValidator(unpack_path), Field(max_length=64 * 1024)]
"""A path as the plugin passed it."""
