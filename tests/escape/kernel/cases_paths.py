"""Opens many spellings of paths from a sealed process, and reports the kernel's decision on each."""

import errno
import itertools
import os

from nyx_core.sandbox import Confinement, confine

FOLDERS = ("read", "read/inner", "read2", "write", "write/inner", "write-evil", "WRITE", "outside")
REFUSALS = (errno.EACCES, errno.EPERM)


def spellings(root: str) -> list[str]:
    """Absolute paths to the file in each folder, normalised and not, without symbolic links."""
    found = []
    for folder in FOLDERS:
        directory = f"{root}/{folder}"
        found += [
            f"{directory}/file",
            f"{directory}//file",
            f"{directory}/./file",
            f"{directory}/deep/../file",
            f"{directory}/",
        ]
        found += [
            f"/{directory}/file",
            f"{directory}/deep/../../{os.path.basename(folder)}/file",
            directory,
            f"{directory}/.",
        ]
    for one, other in itertools.permutations(FOLDERS, 2):
        up = "/".join([".."] * (one.count("/") + 1))
        found.append(f"{root}/{one}/{up}/{other}/file")
    return found


def verdict(path: str, mode: str) -> str:
    """`allowed`, `refused`, or an errno that means neither."""
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
    attempts = itertools.product(spellings(root), ("r", "rw"))
    return [[root, path, mode, verdict(path, mode)] for path, mode in attempts]


CASES = {"kernel_verdicts": kernel_verdicts}
