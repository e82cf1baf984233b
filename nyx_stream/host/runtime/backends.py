"""The isolation levels of one host, each made when it is first asked for. Knows no plugin."""

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
    """The levels between `open` and `aclose`.

    Args:
        tripwire: whether plugins at level `inline` are refused what goes round their capabilities.
        network: how the HTTP capability reaches the network.
        worker_cpus: the processors that workers of level `process` run on; any by default.

    Raises:
        ValueError: `worker_cpus` cannot be had.
    """

    def __init__(
        self, *, tripwire: bool, network: "NetworkBackend | None", worker_cpus: Iterable[int] | None = None
    ) -> None:
        self._tripwire = tripwire
        self._shared = Shared(network)
        self._cpus = parse_cpus(worker_cpus)
        self._made: dict[Level, Backend] = {}
        self.ready = False
        """Whether plugins can be started."""

    def open(self) -> None:
        """Begins."""
        # Here and not above, as everything that needs pydantic: it takes as long to import as all the rest.
        from nyx_stream.isolation.inline.backend import InlineBackend

        self._made = {"inline": InlineBackend(armed=self._tripwire, shared=self._shared)}
        self.ready = True

    def close(self) -> None:
        """Lets no plugin start any more."""
        self.ready = False

    async def aclose(self) -> None:
        """Ends. Every plugin has been stopped."""
        self.close()
        made, self._made = self._made, {}
        for level in made.values():
            await level.aclose()

    def __getitem__(self, isolation: Level) -> Backend:
        """Returns a level that some plugin has used. Raises `KeyError` for any other."""
        return self._made[isolation]

    def get(self, plugin: str | os.PathLike[str], isolation: Level) -> Backend:
        """Returns a level.

        Raises:
            PluginStateError: the host is not open.
            PluginLoadError: there is no such level here.
        """
        name = os.path.basename(os.fspath(plugin))
        if not self.ready:
            raise PluginStateError(name, "the host is not entered, or is closed")
        if isolation == "process" and isolation not in self._made:
            from nyx_stream.isolation.process.backend import ProcessBackend  # a host without one need not import it

            self._made[isolation] = ProcessBackend(shared=self._shared, cpus=self._cpus)
        if isolation not in self._made:
            known = "inline, process"
            raise PluginLoadError(name, f"isolation level {isolation!r} is not available; there is: {known}")
        return self._made[isolation]
