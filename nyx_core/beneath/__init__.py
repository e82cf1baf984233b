"""File operations below a directory that is held open. No path can lead out of it.

`open_root` opens the directory. Every operation takes that root, a path relative to it and, optionally, a `Judge`: a
callback that gets the canonical path before anything changes. On Linux, openat2 resolves paths. Other POSIX systems,
and Linux processes whose seccomp filter refuses openat2, walk the path component by component. Windows compares the
final path of what was opened. `beneath.text` works on path text alone.
"""

import sys

from nyx_core.beneath.errors import EscapesRoot, Judge, NotPlain

if sys.platform == "win32":
    from nyx_core.beneath.windows import (
        WindowsRoot as Root,
    )
    from nyx_core.beneath.windows import (
        list_directory,
        make_directory,
        open_file,
        open_root,
        remove,
        remove_tree,
        rename,
        replace_file,
        status,
    )
else:
    from nyx_core.beneath.changing import make_directory, remove, remove_tree, rename, replace_file
    from nyx_core.beneath.opening import list_directory, open_file, status
    from nyx_core.beneath.root import Root, open_root

__all__ = [
    "EscapesRoot",
    "Judge",
    "NotPlain",
    "Root",
    "list_directory",
    "make_directory",
    "open_file",
    "open_root",
    "remove",
    "remove_tree",
    "rename",
    "replace_file",
    "status",
]
