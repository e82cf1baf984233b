"""Which OS this is: the one place that chooses. Imports only the platform that it runs on.

Each platform package has a module `platform` with a function `platform() -> Platform`.
"""

from __future__ import annotations

import sys
from importlib import import_module

from nyx_core.layers import Platform

PACKAGES = {
    "linux": "nyx_core.linux",
    "darwin": "nyx_core.macos",
    "win32": "nyx_core.windows",
    "openbsd": "nyx_core.openbsd",
}


def current_platform(name: str = sys.platform) -> Platform | None:
    """The platform of this process, or `None` where Nyx has no layers at all.

    `name` is a `sys.platform`; OpenBSD's ends in its release number.
    """
    key = "openbsd" if name.startswith("openbsd") else name
    package = PACKAGES.get(key)
    if package is None:
        return None
    platform = import_module(f"{package}.platform").platform()
    if not isinstance(platform, Platform):
        raise TypeError(f"{package}.platform.platform() is not a Platform")
    return platform
