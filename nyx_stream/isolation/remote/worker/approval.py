"""Worker side of `self.request`: the host answers."""

from collections.abc import Awaitable, Callable

from nyx_stream.isolation.remote.worker.rpc import CapabilityStub
from nyx_stream.policy.approval import Approval


def approval(line: CapabilityStub) -> Callable[[str, str, str], Awaitable[Approval]]:
    """A `ProxyFactory`."""

    async def ask(kind: str, target: str, why: str) -> Approval:
        return Approval(*(await line.ask("request", kind=kind, target=target, why=why)).value)

    return ask
