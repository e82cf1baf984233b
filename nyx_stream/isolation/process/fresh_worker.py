"""A worker that was not forked from a zygote: does for itself what a zygote does once for all. Worker side."""

import os
import signal
import socket
import sys
from contextlib import suppress

from nyx_stream.isolation.process import worker
from nyx_stream.isolation.process.lineage import die_with_parent
from nyx_stream.isolation.process.sealing import CHANNEL
from nyx_stream.isolation.process.zygote import warm


def main(descriptor: int, host: int) -> None:
    """Lives the life of a worker with its channel at `descriptor`; `host` is the pid of its host. Never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        die_with_parent(host, signal.SIGKILL)
        warm()
        if descriptor != CHANNEL:
            os.dup2(descriptor, CHANNEL)
            os.close(descriptor)
        status = worker.main(socket.socket(fileno=CHANNEL))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
