"""A host that has reached the limit on descriptors in flight; runs as a process of its own.

`python -m tests.isolation.process.descriptors_in_flight FOLDER` loads the plugins in FOLDER and prints as JSON what
their calls return at the limit and afterwards. The limit is `RLIMIT_NOFILE`, over all processes of a user. It doesn't
apply to a process with `CAP_SYS_RESOURCE` or `CAP_SYS_ADMIN` (unix(7)), so these are dropped here.
"""

import asyncio
import json
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from nyx_core.linux.privileges import capability_sets, set_capabilities
from nyx_stream import PluginHost
from nyx_stream.errors import PluginError
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.policy import SandboxPolicy

LIMIT = 256
OTHERS = ("two", "three", "four")
EXEMPT = 1 << 24 | 1 << 21
POLICY = SandboxPolicy.locked_down().allow_path_prefix("$DATA")


def fill() -> tuple[socket.socket, socket.socket]:
    """Sends more descriptors than may be in flight to a socket that is never read."""
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
        run = one._record.run
        answers: dict[str, Any] = {"before": await attempt(one.call("read"))}
        full = fill()
        answers["at once"] = await attempt(one.call("read"))
        flush = Channel._flush
        Channel._flush = _full_once(flush)  # the socket takes nothing at first: the response waits in the queue
        answers["queued"] = await attempt(one.call("read"))
        Channel._flush = flush
        answers["without"] = await attempt(one.call("echo"))
        for name in OTHERS:  # a worker may have been made ahead, but not for all
            try:
                await host.load(folder / name, isolation="process")
            except PluginError as error:
                answers["another"] = f"{type(error).__name__}: {error}"
                break
        for end in full:
            end.close()
        answers["after"] = await attempt(one.call("read"))
        answers["another after"] = await attempt((await host.load(folder / name, isolation="process")).call("echo"))
        answers["the same run"] = one._record.run is run and one.state
        return answers


def _full_once(flush: Any) -> Any:
    full = True

    def once(channel: Channel) -> OSError | None:
        nonlocal full
        if full:
            full = False
            return None
        return flush(channel)

    return once


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    effective, permitted, inheritable = capability_sets()
    set_capabilities(effective & ~EXEMPT, permitted & ~EXEMPT, inheritable & ~EXEMPT)
    print(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
