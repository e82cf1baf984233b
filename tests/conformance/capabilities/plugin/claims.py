"""What the cases claim with: an error as values, so that it can be compared between levels."""

from collections.abc import Awaitable, Callable


async def refused(act: Awaitable[object], kind: type[BaseException]) -> list[object]:
    """Waits for an act that must raise `kind`; returns class names that plugins catch by, and the text."""
    try:
        outcome = await act
    except kind as error:
        return _told(error)
    raise AssertionError(f"it worked: {outcome!r}")


def refused_at_once(act: Callable[[], object], kind: type[BaseException]) -> list[object]:
    """The same for an act that nobody waits for."""
    try:
        outcome = act()
    except kind as error:
        return _told(error)
    raise AssertionError(f"it worked: {outcome!r}")


def _told(error: BaseException) -> list[object]:
    public = [base.__name__ for base in type(error).__mro__ if not base.__module__.startswith("nyx_stream.isol")]
    return [public, str(error)]
