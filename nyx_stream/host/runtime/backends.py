"""The isolation backends of one host, each made when the first plugin asks for it."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nyx_stream.errors import PluginLoadError, PluginStateError
from nyx_stream.isolation.backend import Backend, Level
from nyx_stream.isolation.capability_set import Shared
from nyx_stream.isolation.process.affinity import parse_cpus

if TYPE_CHECKING:
    from nyx_stream.capabilities.http import NetworkBackend


class Backends:
    """The backends between `open` and `aclose`, by isolation level.

    Args:
        tripwire: whether the tripwire refuses what bypasses the capabilities at level `inline`.
        network: how the HTTP capability reaches the network.
        worker_cpus: the processors on which workers of level `process` run; any by default.

    Raises:
        ValueError: this system can't run workers on `worker_cpus`.
    """

    def __init__(
        self, *, tripwire: bool, network: "NetworkBackend | None", worker_cpus: Iterable[int] | None = None
    ) -> None:
        self._tripwire = tripwire
        self._shared = Shared(network)
        self._cpus = parse_cpus(worker_cpus)
        self._made: dict[Level, Backend] = {}
        self.is_open = False
        """Whether plugins can be started."""

    def open(self) -> None:
        """Allows plugins to start."""
        # Imported here, like everything that needs pydantic: its import takes as long as the rest of the host's.
        from nyx_stream.isolation.inline.backend import InlineBackend

        self._made = {"inline": InlineBackend(armed=self._tripwire, shared=self._shared)}
        self.is_open = True

    def close(self) -> None:
        """Stops further plugins from starting."""
        self.is_open = False

    async def aclose(self) -> None:
        """Closes the backends. Every plugin must have been stopped."""
        self.close()
        made, self._made = self._made, {}
        for backend in made.values():
            await backend.aclose()

    def get(self, plugin: str | os.PathLike[str], isolation: Level) -> Backend:
        """Returns the backend of a level.

        Raises:
            PluginStateError: the host is not open.
            PluginLoadError: the level isn't available.
        """
        name = os.path.basename(os.fspath(plugin))
        if not self.is_open:
            raise PluginStateError(name, "the host is not entered, or is closed")
        if isolation == "process" and isolation not in self._made:
            from nyx_stream.isolation.process.backend import ProcessBackend  # only for hosts that use it

            self._made[isolation] = ProcessBackend(shared=self._shared, cpus=self._cpus)
        if isolation not in self._made:
            known = "inline, process"
            raise PluginLoadError(name, f"isolation level {isolation!r} is not available; available are: {known}")
        return self._made[isolation]
