"""A seccomp filter that doesn't know openat2, as in older container runtimes: the walk replaces it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp exists on Linux only")

PROGRAM = """
import ctypes, errno, os, struct, sys
from nyx_core.beneath.errors import EscapesRoot
from nyx_core.beneath.openat2 import probe
from nyx_core.beneath.opening import open_file
from nyx_core.beneath.root import open_root

answer, before = int(sys.argv[2]), sys.argv[3] == "before"

def refuse_openat2():
    # load nr; 437? answer : allow
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, 437), (0x06, 0, 0, 0x00050000 | answer), (0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer)))
    assert libc.prctl(22, 2, fprog, 0, 0) == 0, os.strerror(ctypes.get_errno())

if before:
    refuse_openat2()
root = open_root(sys.argv[1])
if not before:
    refuse_openat2()
assert errno.errorcode[answer] in probe()
with open(open_file(root, "b/../b/c/f", os.O_RDONLY)) as file:
    assert file.read() == "deep"
for path in ("../S", "o/f", "b/../../S"):
    try:
        open_file(root, path, os.O_RDONLY)
    except EscapesRoot:
        continue
    raise SystemExit(f"{path} opened")
print("walked")
"""


@pytest.mark.parametrize("answer", [1, 38], ids=["EPERM", "ENOSYS"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_filter_that_refuses_openat2(tree: Path, answer: int, when: str) -> None:
    """Opening works and escapes are refused, whether the filter is installed before or after open_root."""
    (tree / "R/o").symlink_to("../out")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tree / "R"), str(answer), when],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "walked\n", run.stderr
