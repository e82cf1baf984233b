"""Things that stand at a path and are no regular file."""

import os
import socket
from pathlib import Path


def make_directory(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            one.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself may be longer than an address can be
        finally:
            os.close(folder)


SPECIAL = {"directory": make_directory, "pipe": make_pipe, "device": make_device, "socket": make_socket}
