"""Level `process`: each plugin in its own sealed process."""

from nyx_stream.isolation.capability_set import Shared
from nyx_stream.isolation.process.spawn import FORK_IS_SAFE, FreshWorkers
from nyx_stream.isolation.process.warm_pool import WarmPool
from nyx_stream.isolation.process.zygote_client import ZygoteClient
from nyx_stream.isolation.remote.host.backend import RemoteBackend


class ProcessBackend(RemoteBackend):
    """Runs plugins in sealed processes, on the processors `cpus` or on any. One per host."""

    def __init__(self, *, shared: Shared, cpus: frozenset[int] | None = None) -> None:
        self.processes = ZygoteClient(cpus) if FORK_IS_SAFE else FreshWorkers(cpus)
        super().__init__(WarmPool(self.processes), shared)
