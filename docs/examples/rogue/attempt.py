"""One attempt: what was tried, and who refused it."""

import socket
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from nyx_stream.errors import SandboxDenied, TripwireDenied

Try = Callable[[], Awaitable[object]]


class Attempt(BaseModel):
    """`layer` is `guard`, `tripwire` or `kernel`; `rule` is the rule that decided, `None` where none allows it."""

    what: str
    refused: bool
    layer: str | None = None
    rule: str | None = None
    reason: str


async def attempt(what: str, act: Try) -> Attempt:
    """Runs an attempt and says who refused it. An attempt that fails for another reason was not refused."""
    try:
        outcome = await act()
    except TripwireDenied as denied:
        return Attempt(what=what, refused=True, layer="tripwire", rule=denied.rule, reason=denied.reason)
    except SandboxDenied as denied:
        return Attempt(what=what, refused=True, layer="guard", rule=denied.rule, reason=denied.reason)
    except Exception as error:
        refusal = _by_the_kernel(error)
        if refusal is not None:
            return Attempt(
                what=what, refused=True, layer="kernel", reason=f"{type(refusal).__name__}: {refusal.strerror}"
            )
        return Attempt(what=what, refused=False, reason=f"failed by itself: {type(error).__name__}: {error}")
    return Attempt(what=what, refused=False, reason=f"it worked: {outcome!r:.80}")


def _by_the_kernel(error: BaseException | None) -> OSError | None:
    """The kernel's refusal behind an error, or `None`. A look-up hides it: the system's resolver finds no way out."""
    while error is not None:
        if isinstance(error, PermissionError | socket.gaierror):
            return error
        error = error.__cause__ or error.__context__
    return None
