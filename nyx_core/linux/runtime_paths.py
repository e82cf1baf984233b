"""Where the interpreter and the C library read at run time: what `Confinement.python_runtime` lets through.

Names paths only; opens nothing. Missing ones are skipped by whoever uses them.
"""

from __future__ import annotations

from nyx_core.posix.python_paths import python_paths

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
# The certificates and the configuration by name: private keys lie beside them, and a host may run as root.
TRUST = (
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf",
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
    paths = (*python_paths(), *LIBRARIES, *TRUST, *TIME, *DEVICES, *(NAMES if network else ()))
    return tuple(dict.fromkeys(paths))
