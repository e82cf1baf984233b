"""Where the interpreter reads its own files: standard library, installed packages, and Nyx itself. Names
paths only.
"""

from __future__ import annotations

import os
import sys


def python_paths() -> tuple[str, ...]:
    """Absolute paths, each once. What lies elsewhere on `sys.path` is no part of the installation."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = [os.path.dirname(os.__file__), os.path.join(here, "nyx_core"), os.path.join(here, "nyx_stream")]
    for entry in sys.path:
        installed = any(entry.startswith(prefix.rstrip("/") + "/lib") for prefix in prefixes)
        packages = os.path.basename(entry) in ("site-packages", "dist-packages")
        if os.path.isabs(entry) and (installed or packages):
            found.append(entry)
    return tuple(dict.fromkeys(path for path in found if os.path.exists(path)))
