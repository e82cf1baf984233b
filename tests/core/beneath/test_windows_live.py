"""Opening on Windows, with the real kernel32."""

import os
import sys
from pathlib import Path

import pytest

from nyx_core import beneath
from nyx_core.beneath import EscapesRoot

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="needs the real kernel32 of Windows")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """R with a file, and a directory `out` beside it."""
    (tmp_path / "R/d").mkdir(parents=True)
    (tmp_path / "R/f").write_text("inside")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/f").write_text("secret")
    return tmp_path


def test_the_operations(tree: Path) -> None:
    """A file is created, read, listed, renamed, replaced and removed below the root."""
    root = beneath.open_root(str(tree / "R"))
    with open(beneath.open_file(root, "d\\new", os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
        file.write("x")
    assert beneath.list_directory(root, "d") == ["new"]
    beneath.rename((root, "d/new"), (root, "moved"))
    beneath.replace_file(root, "moved", b"replaced")
    with open(beneath.open_file(root, "D\\..\\MOVED", os.O_RDONLY)) as file:
        assert file.read() == "replaced"
    assert beneath.status(root, "moved").st_size == 8
    beneath.make_directory(root, "d\\e\\")
    beneath.remove(root, "moved")
    beneath.remove_tree(root, "d")
    assert os.listdir(tree / "R") == ["f"]
    root.close()


def test_a_junction_that_leads_out(tree: Path) -> None:
    """Everything below a junction to the outside is an escape, and nothing is created there."""
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(tree / "out"), str(tree / "R/j"))
    root = beneath.open_root(str(tree / "R"))
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        with pytest.raises(EscapesRoot):
            beneath.open_file(root, "j\\f", flags)
    for change in (beneath.make_directory, beneath.remove, beneath.remove_tree):
        with pytest.raises(EscapesRoot):
            change(root, "j\\new")
    root.close()
    assert (tree / "out/f").read_text() == "secret"
    assert os.listdir(tree / "out") == ["f"]
