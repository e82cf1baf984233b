"""Watching folders for changes, with one thread of `watchfiles`. Knows no policy and no plugin."""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection

from nyx_stream.errors import WatchUnavailable

_log = logging.getLogger("nyx.host")

_STEP = 100
"""Milliseconds without another change after which changes are told: whoever writes has finished, or pauses."""
_LONGEST = 1600
"""Milliseconds after which they are told though others follow."""
_BEAT = 50
"""Quiet steps after which a look is asked for all the same: for network file systems, and folders that are new."""


def require_watchfiles() -> None:
    """Raises `WatchUnavailable` if files cannot be watched here."""
    try:
        import watchfiles  # noqa: F401  # asked for here, used by the thread
    except ImportError as error:
        raise WatchUnavailable("files are watched by watchfiles: pip install 'nyx-sandbox[watch]'") from error


class FolderWatch:
    """Calls `happened` on the event loop soon after something changed in the folders, once at first, and now and then.

    What changed is not told: names tell little, where files are replaced through links.
    """

    def __init__(self, folders: Collection[str], happened: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._happened = happened
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sorted(folders),), name="nyx-watch", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """Ends the thread; returns when it has ended."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self, folders: list[str]) -> None:
        try:
            self._watch(folders)
        except (OSError, RuntimeError) as error:  # a folder that went away; or the system has no more watches to give
            _log.warning("policy files are looked at every %g s only: %s", _STEP * _BEAT / 1000, error)
        while not self._stop.wait(_STEP * _BEAT / 1000):
            self._tell()

    def _watch(self, folders: list[str]) -> None:
        from watchfiles import watch

        changes = watch(
            *folders,
            watch_filter=None,
            debounce=_LONGEST,
            step=_STEP,
            stop_event=self._stop,
            rust_timeout=_STEP,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )
        # The first step, too: what changed between the last look and the beginning of the watch was not seen.
        quiet = _BEAT
        for found in changes:
            quiet += 1
            if found or quiet >= _BEAT:
                quiet = 0
                self._tell()

    def _tell(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._happened)
        except RuntimeError:  # the loop is closed: nobody is left
            self._stop.set()
