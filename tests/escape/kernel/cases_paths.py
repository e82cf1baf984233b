"""Opens many spellings of paths from a sealed process, and tells what the kernel said to each."""

import errno
import itertools
import os

from nyx_core.sandbox import Confinement, confine

FOLDERS = ("read", "read/inner", "read2", "write", "write/inner", "write-evil", "WRITE", "outside")
REFUSALS = (errno.EACCES, errno.EPERM)


def spellings(root: str) -> list[str]:
    """Absolute paths to the file in each folder, straight and crooked, without symbolic links."""
    found = []
    for folder in FOLDERS:
        place = f"{root}/{folder}"
        found += [f"{place}/file", f"{place}//file", f"{place}/./file", f"{place}/deep/../file", f"{place}/"]
        found += [f"/{place}/file", f"{place}/deep/../../{os.path.basename(folder)}/file", place, f"{place}/."]
    for one, other in itertools.permutations(FOLDERS, 2):
        up = "/".join([".."] * (one.count("/") + 1))
        found.append(f"{root}/{one}/{up}/{other}/file")
    return found


def verdict(path: str, mode: str) -> str:
    """`allowed`, `refused`, or the errno that says neither."""
    flags = os.O_RDONLY if mode == "r" else os.O_RDWR
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return "refused" if error.errno in REFUSALS else errno.errorcode[error.errno or 0]
    return "allowed"


def kernel_verdicts() -> list[list[str]]:
    """Path, mode and verdict for every spelling."""
    root = os.getcwd()
    for folder in FOLDERS:
        os.makedirs(f"{folder}/deep")
        open(f"{folder}/file", "w").close()
    confine(Confinement(readable=(f"{root}/read",), writable=(f"{root}/write",), python_runtime=False))
    trials = itertools.product(spellings(root), ("r", "rw"))
    return [[root, path, mode, verdict(path, mode)] for path, mode in trials]


CASES = {"kernel_verdicts": kernel_verdicts}
