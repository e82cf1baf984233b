"""One attempt: what was tried, and who refused it."""

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
    except PermissionError as error:
        return Attempt(what=what, refused=True, layer="kernel", reason=f"{type(error).__name__}: {error.strerror}")
    except Exception as error:
        return Attempt(what=what, refused=False, reason=f"failed by itself: {type(error).__name__}: {error}")
    return Attempt(what=what, refused=False, reason=f"it worked: {outcome!r:.80}")
