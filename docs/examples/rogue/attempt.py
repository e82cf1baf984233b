"""Performs one attempt and reports which layer refused it."""

import socket
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from nyx_stream.errors import SandboxDenied, TripwireDenied

Action = Callable[[], Awaitable[object]]


class Attempt(BaseModel):
    """The result. `layer` is `guard`, `tripwire` or `kernel`; `rule` is the deciding rule, `None` if none matched."""

    what: str
    refused: bool
    layer: str | None = None
    rule: str | None = None
    reason: str


async def attempt(what: str, action: Action) -> Attempt:
    """Performs an attempt. One that fails for a reason other than a refusal counts as not refused."""
    try:
        outcome = await action()
    except TripwireDenied as denied:
        return Attempt(what=what, refused=True, layer="tripwire", rule=denied.rule, reason=denied.reason)
    except SandboxDenied as denied:
        return Attempt(what=what, refused=True, layer="guard", rule=denied.rule, reason=denied.reason)
    except Exception as error:
        refusal = _kernel_refusal(error)
        if refusal is not None:
            return Attempt(
                what=what, refused=True, layer="kernel", reason=f"{type(refusal).__name__}: {refusal.strerror}"
            )
        return Attempt(what=what, refused=False, reason=f"failed for another reason: {type(error).__name__}: {error}")
    return Attempt(what=what, refused=False, reason=f"it worked: {outcome!r:.80}")


def _kernel_refusal(error: BaseException | None) -> OSError | None:
    """Returns the kernel's refusal in the chain of causes, or `None`. A name look-up reports one as `gaierror`."""
    while error is not None:
        if isinstance(error, PermissionError | socket.gaierror):
            return error
        error = error.__cause__ or error.__context__
    return None
