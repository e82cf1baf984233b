"""Host side of `self.request`: passes the plugin's question on to the host. What it says is judged there."""

from typing import Annotated

from pydantic import Field, JsonValue

from nyx_stream.isolation.remote.host.broker import Means, Reply
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Arguments
from nyx_stream.policy.approval import MAX_KIND_LENGTH, MAX_TEXT_LENGTH


class Request(Arguments):
    """What a plugin asks for."""

    kind: Annotated[str, Field(max_length=MAX_KIND_LENGTH)]
    target: Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
    why: Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]


class HostApproval:
    """A `Handler`: `request`."""

    def __init__(self, means: Means) -> None:
        self._ask = means.assignment.ask

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action != "request":
            raise ProtocolFault(f"approval cannot {action!r}")
        ask = Request.model_validate(arguments)
        approval = await self._ask(ask.kind, ask.target, ask.why)
        return Reply([approval.granted, approval.reason, approval.once, approval.until])

    async def aclose(self) -> None:
        """Nothing is held: a question is the host's."""
