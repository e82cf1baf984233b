"""What the cases claim with: an error as values, so that it can be compared between levels."""

from collections.abc import Awaitable


async def refused(act: Awaitable[object], kind: type[BaseException]) -> list[object]:
    """Waits for an act that must raise `kind`; returns class names that plugins catch by, and the text."""
    try:
        outcome = await act
    except kind as error:
        public = [base.__name__ for base in type(error).__mro__ if not base.__module__.startswith("nyx_stream.isol")]
        return [public, str(error)]
    raise AssertionError(f"it worked: {outcome!r}")
