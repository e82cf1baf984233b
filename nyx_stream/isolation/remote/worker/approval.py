"""Worker binding of `self.request`: the host answers."""

from nyx_stream.isolation.remote.worker.rpc import CapabilityStub
from nyx_stream.policy.approval import Approval


class RemoteApproval:
    """Asks the host for an optional permission."""

    def __init__(self, stub: CapabilityStub) -> None:
        self._stub = stub

    async def __call__(self, kind: str, target: str, why: str) -> Approval:
        return Approval(*(await self._stub.ask("request", kind=kind, target=target, why=why)).value)
