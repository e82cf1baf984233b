"""Values that JSON has no type for, as host and worker write them in arguments and answers. Pure."""

import base64
import binascii
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from nyx_stream.isolation.remote.wire.messages import Message

INLINE = 64 * 1024
"""Bytes that still travel inside a message; more of them go through a pipe of their own."""

PASSING = 32
"""Descriptors of bodies, whole files and listings that may be on their way at once, beside what a grant counts."""


NARROW = "narrow"
"""The action of every capability that can be narrowed."""
MOST_NARROWED = 256
"""Narrowed capabilities that a worker may hold at once."""
MOST_RULES = 32
"""Rules, or prefixes, of a narrowed capability and of those above it: all of them are looked at for each request."""
LONGEST_RULE = 8192
"""Characters of one of them."""


class Arguments(Message):
    """Base of what a handler takes: exact types, no field that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants")


def pack(data: bytes) -> str:
    """Returns bytes as text: base64, RFC 4648, section 4."""
    return base64.b64encode(data).decode("ascii")


def unpack(text: Any) -> bytes:
    """Returns the bytes of `pack`. Raises ValueError for anything else."""
    if type(text) is not str:
        raise ValueError("not text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def pack_path(path: str) -> str:
    """Returns a path as text that JSON can carry: a lone surrogate, of a name that is no UTF-8, is none."""
    return path.encode("utf-8", "surrogatepass").decode("latin-1")


def unpack_path(text: Any) -> str:
    """Returns the path of `pack_path`. Raises ValueError for anything else."""
    if type(text) is not str:
        raise ValueError("not text")
    return text.encode("latin-1").decode("utf-8", "surrogatepass")


Packed = Annotated[bytes, BeforeValidator(unpack), Field(max_length=INLINE)]
"""Bytes inside a message."""

PathText = Annotated[str, BeforeValidator(unpack_path), Field(max_length=64 * 1024)]
"""A path as the plugin gave it."""
