"""Host binding of `self.request`: passes the plugin's question on to the host, which validates its parts."""

from typing import Annotated

from pydantic import Field, JsonValue

from nyx_stream.isolation.remote.host.broker import HandlerContext, Reply
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Arguments
from nyx_stream.policy.approval import MAX_KIND_LENGTH, MAX_TEXT_LENGTH


class Request(Arguments):
    """`request`: the permission that a plugin asks for."""

    kind: Annotated[str, Field(max_length=MAX_KIND_LENGTH)]
    target: Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
    why: Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]


class ApprovalHandler:
    """A `Handler`: `request`."""

    def __init__(self, context: HandlerContext) -> None:
        self._ask = context.capabilities.service("approval")

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        if action != "request":
            raise ProtocolFault(f"approval has no action {action!r}")
        ask = Request.model_validate(arguments)
        approval = await self._ask(ask.kind, ask.target, ask.why)
        return Reply([approval.granted, approval.reason, approval.once, approval.until])

    async def aclose(self) -> None:
        """Does nothing: the host keeps the question."""
