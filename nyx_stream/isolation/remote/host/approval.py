"""Host binding of `self.request`: passes the plugin's question on to the host, which validates its parts."""

from typing import Annotated

from pydantic import Field

from nyx_stream.isolation.remote.host.broker import Handler, Reply
from nyx_stream.policy.approval import MAX_KIND_LENGTH, MAX_TEXT_LENGTH

_Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]


class ApprovalHandler(Handler):
    capability = "approval"
    actions = ("request",)

    async def request(
        self, kind: Annotated[str, Field(max_length=MAX_KIND_LENGTH)], target: _Text, why: _Text
    ) -> Reply:
        approval = await self._service(kind, target, why)
        return Reply([approval.granted, approval.reason, approval.once, approval.until])
