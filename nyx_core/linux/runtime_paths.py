"""Where the interpreter and the C library read at run time: what `Confinement.python_runtime` lets through.

Names paths only; opens nothing. Missing ones are skipped by whoever uses them.
"""

from __future__ import annotations

import os
import sys

LIBRARIES = (
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
)
TRUST = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)
TIME = ("/etc/localtime", "/usr/share/zoneinfo")
DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero")
NAMES = (  # getaddrinfo through nss
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
    "/etc/services", "/etc/protocols", "/run/systemd/resolve",
)  # fmt: skip


def runtime_paths(*, network: bool) -> tuple[str, ...]:
    """Absolute paths to read. With `network`, those of name resolution too."""
    paths = (*_python_paths(), *LIBRARIES, *TRUST, *TIME, *DEVICES, *(NAMES if network else ()))
    return tuple(dict.fromkeys(paths))


def _python_paths() -> list[str]:
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    paths = [os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    for entry in sys.path:
        if not os.path.isabs(entry):
            continue  # the working directory is no part of the installation
        installed = any(entry.startswith(prefix.rstrip("/") + "/lib") for prefix in prefixes)
        if installed or os.path.basename(entry) in ("site-packages", "dist-packages"):
            paths.append(entry)
    return paths
