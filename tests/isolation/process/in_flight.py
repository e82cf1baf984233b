"""A host of a user whose bound on descriptors in flight is reached; runs as a process of its own.

`python -m tests.isolation.process.in_flight FOLDER`: there are plugins in it. Prints one JSON text: what they were
told, meanwhile and afterwards. The bound is `RLIMIT_NOFILE`, over all of a user's processes, and holds for nobody with
`CAP_SYS_RESOURCE` or `CAP_SYS_ADMIN` (unix(7)): those are dropped here.
"""

import asyncio
import json
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from nyx_core.linux.capabilities import capability_sets, set_capabilities
from nyx_stream import PluginHost
from nyx_stream.errors import PluginError
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.policy import SandboxPolicy

LIMIT = 256
OTHERS = ("two", "three", "four")
EXEMPT = 1 << 24 | 1 << 21
POLICY = SandboxPolicy.locked_down().allow_path_prefix("$DATA")


def fill() -> tuple[socket.socket, socket.socket]:
    """Sends more descriptors than may be in flight to a socket that nobody reads."""
    pair = socket.socketpair()
    for _ in range(2 + LIMIT // 100):
        try:
            socket.send_fds(pair[0], [b"x"], [0] * 100)
        except OSError:
            return pair
    raise RuntimeError("the bound does not hold for this process")


async def attempt(call: Any) -> Any:
    try:
        return await call
    except PluginError as error:
        return f"{type(error).__name__}: {error}"


async def main(folder: Path) -> dict[str, Any]:
    async with PluginHost(data_dir=folder / "data") as host:
        one = await host.load(folder / "one", policy=POLICY, isolation="process")
        begun = one._record.run
        told: dict[str, Any] = {"before": await attempt(one.call("read"))}
        full = fill()
        told["at once"] = await attempt(one.call("read"))
        write = Channel._write
        Channel._write = _full_once(write)  # the socket takes nothing at first: the answer waits in the queue
        told["queued"] = await attempt(one.call("read"))
        Channel._write = write
        told["without"] = await attempt(one.call("echo"))
        for name in OTHERS:  # a worker may have been made ahead, but not for all
            try:
                await host.load(folder / name, isolation="process")
            except PluginError as error:
                told["another"] = f"{type(error).__name__}: {error}"
                break
        for end in full:
            end.close()
        told["after"] = await attempt(one.call("read"))
        told["another after"] = await attempt((await host.load(folder / name, isolation="process")).call("echo"))
        told["the same life"] = one._record.run is begun and one.state
        return told


def _full_once(write: Any) -> Any:
    full = True

    def once(channel: Channel, data: Any, descriptors: tuple[int, ...]) -> int:
        nonlocal full
        if descriptors and full:
            full = False
            return 0
        return int(write(channel, data, descriptors))

    return once


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    effective, permitted, inheritable = capability_sets()
    set_capabilities(effective & ~EXEMPT, permitted & ~EXEMPT, inheritable & ~EXEMPT)
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
