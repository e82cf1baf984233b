"""Opening below a directory that is held open, so that no name can lead out of it. Knows no policy.

`open_root` holds a directory; the operations take it, a path relative to it and, where the caller wants to
see what a path really led to before anything changes, a `Judge`. On Linux openat2 resolves, elsewhere on
POSIX (and under filters that refuse openat2) a walk by components; on Windows what was opened is compared by
its final path. `beneath.text` is about path text alone.
"""

import sys

from nyx_core.beneath.errors import EscapesRoot, NotPlain
from nyx_core.beneath.judge import Judge

if sys.platform == "win32":
    from nyx_core.beneath.windows import (
        Root,
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
