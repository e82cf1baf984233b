"""The private data directories of plugins: where they lie, and that they are private."""

import os
import stat
import sys
from contextlib import suppress


def default_data_dir() -> str:
    """Returns the directory for data of this user's applications, as the platform has it, below it `nyx`.

    Linux and BSD: `$XDG_DATA_HOME`, or `~/.local/share` (XDG Base Directory Specification); macOS:
    `~/Library/Application Support`; Windows: `%LOCALAPPDATA%`.
    """
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME", "")
        if not os.path.isabs(base):  # the specification: a relative value is to be ignored
            base = os.path.join(home, ".local", "share")
    return os.path.join(base, "nyx")


def make_private(path: str) -> None:
    """Makes the directory `path` if there is none, and takes the rights of others on it away.

    Raises:
        OSError: it cannot be made, or is something else than a directory of this user.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)  # not `stat`: a link planted here would lead the plugin's writes elsewhere
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is not a directory")
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(path, 0o700)
