"""A worker that was not forked from a zygote: does for itself what a zygote does once for all. Worker side."""

import os
import signal
import socket
from functools import partial
from typing import NoReturn

from nyx_stream.isolation.process.parent_death import die_with_parent, live
from nyx_stream.isolation.process.seal import CHANNEL
from nyx_stream.isolation.process.zygote import warm
from nyx_stream.isolation.remote.worker import main as worker


def main(descriptor: int, host: int) -> NoReturn:
    """Lives the life of a worker with its channel at `descriptor`; `host` is the pid of its host. Never returns."""
    live(partial(_life, descriptor, host))


def _life(descriptor: int, host: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(host, signal.SIGKILL)
    warm()
    if descriptor != CHANNEL:
        os.dup2(descriptor, CHANNEL)
        os.close(descriptor)
    return worker.main(socket.socket(fileno=CHANNEL))
