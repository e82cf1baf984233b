"""What a host and its zygote say to each other: one JSON text per packet of a SOCK_SEQPACKET socket. Values only."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from nyx_stream.isolation.remote.wire.messages import Message

MAX_PACKET = 4096


class Fork(Message):
    """Host: make a worker. With it come three descriptors: channel, standard output, standard error."""

    kind: Literal["fork"] = "fork"
    worker: int


class Kill(Message):
    """Host: SIGKILL to a worker, if it is still there. The zygote is its parent, so its pid cannot be another's."""

    kind: Literal["kill"] = "kill"
    worker: int


class Forked(Message):
    """Zygote: the worker exists."""

    kind: Literal["forked"] = "forked"
    worker: int
    pid: int


class NotForked(Message):
    """Zygote: fork(2) failed with this errno."""

    kind: Literal["not_forked"] = "not_forked"
    worker: int
    errno: int


class Exited(Message):
    """Zygote: the worker ended and is reaped. `status` is an exit code, or a signal's number negated."""

    kind: Literal["exited"] = "exited"
    worker: int
    status: int


Request: TypeAlias = Annotated[Fork | Kill, Field(discriminator="kind")]
Report: TypeAlias = Annotated[Forked | NotForked | Exited, Field(discriminator="kind")]

REQUEST: TypeAdapter[Fork | Kill] = TypeAdapter(Request)
REPORT: TypeAdapter[Forked | NotForked | Exited] = TypeAdapter(Report)
