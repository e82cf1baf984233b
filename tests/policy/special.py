"""Makes files that aren't regular: a directory, a pipe, a device, a socket."""

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
            one.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path itself can be longer than a socket address
        finally:
            os.close(folder)


SPECIAL = {"directory": make_directory, "pipe": make_pipe, "device": make_device, "socket": make_socket}
