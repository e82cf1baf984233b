"""Changing names below R: operations act on the name, can't leave R, and call the judge before anything changes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nyx_core.beneath.changing import make_directory, remove, remove_tree, rename, replace_file
from nyx_core.beneath.errors import EscapesRoot, NotPlain
from nyx_core.beneath.opening import list_directory, open_file, status
from nyx_core.beneath.root import Root, open_root
from nyx_core.beneath.walk import Opener

OPERATIONS: dict[str, Callable[..., object]] = {
    "open": lambda root, path, judge=None: os.close(open_file(root, path, os.O_RDONLY, judge=judge)),
    "create": lambda root, path, judge=None: os.close(
        open_file(root, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, judge=judge)
    ),
    "list": list_directory,
    "status": status,
    "make": lambda root, path, judge=None: make_directory(root, path, judge=judge),
    "remove": remove,
    "remove tree": remove_tree,
    "rename from": lambda root, path, judge=None: rename((root, path), (root, "x"), (judge, None)),
    "rename to": lambda root, path, judge=None: rename((root, "f"), (root, path), (None, judge)),
    "replace": lambda root, path, judge=None: replace_file(root, path, b"new", judge),
}


def snapshot(tree: Path) -> list[tuple[str, int, int]]:
    found = []
    for where, folders, files in os.walk(tree):
        for name in folders + files:
            seen = os.lstat(os.path.join(where, name))
            found.append((os.path.join(where, name), seen.st_ino, seen.st_size))
    return sorted(found)


class Refusal(Exception):
    """Raised by the judge of these tests."""


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_the_judge_comes_first(root: Root, tree: Path, operation: str) -> None:
    """The judge gets the canonical path. If it refuses, nothing has changed and nothing stays open."""
    os.symlink("b/c", tree / "R/l")
    path, wanted = {"list": ("l/../d", "b/d"), "make": ("l/new", "b/c/new")}.get(operation, ("l/f", "b/c/f"))
    before, held = snapshot(tree), len(os.listdir("/dev/fd"))
    seen = []

    def judge(below: str, absolute: str) -> None:
        seen.append((below, absolute))
        raise Refusal

    with pytest.raises(Refusal):
        OPERATIONS[operation](root, path, judge=judge)
    assert seen == [(wanted, os.path.join(os.path.realpath(tree / "R"), wanted))]
    assert snapshot(tree) == before
    assert len(os.listdir("/dev/fd")) == held


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_judge_that_allows(root: Root, tree: Path, operation: str) -> None:
    """If the judge allows it, the operation is carried out."""
    path = {"list": "b/d", "make": "b/new", "remove": "b/t"}.get(operation, "b/c/f")
    seen: list[str] = []
    OPERATIONS[operation](root, path, judge=lambda below, absolute: seen.append(below))
    assert seen


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("path", ["..", "../out/f", "out/../../out/f", "o/f", "o/new", "/b"])
def test_nothing_leads_out(root: Root, tree: Path, operation: str, path: str) -> None:
    """Every operation on a path that leads out of R raises EscapesRoot and changes nothing."""
    os.symlink("../out", tree / "R/o")
    os.mkdir(tree / "R/out")
    before = snapshot(tree)
    with pytest.raises(EscapesRoot):
        OPERATIONS[operation](root, path)
    assert snapshot(tree) == before


def test_replacing(root: Root, tree: Path) -> None:
    """A replaced file keeps its mode, a link to it stays a link, another hard link keeps the old content."""
    os.chmod(tree / "R/b/t", 0o640)
    os.link(tree / "R/b/t", tree / "out/hard")
    os.symlink("b/t", tree / "R/l")
    replace_file(root, "l", b"new")
    assert (tree / "R/b/t").read_bytes() == b"new"
    assert (tree / "R/b/t").stat().st_mode & 0o777 == 0o640
    assert (tree / "out/hard").read_text() == "b/t"
    assert os.path.islink(tree / "R/l")
    with pytest.raises(NotPlain):
        replace_file(root, "fifo", b"")
    with pytest.raises(IsADirectoryError):
        replace_file(root, "b", b"")
    assert sorted(os.listdir(tree / "R")) == ["a", "b", "f", "fifo", "l"]


def test_a_failed_replacement_leaves_nothing(root: Root, tree: Path) -> None:
    """If the last step fails, the temporary file is removed."""
    os.mkdir(tree / "R/d")
    long_name = "n" * 300
    with pytest.raises(OSError, match="too long"):
        replace_file(root, f"d/{long_name}", b"x")
    assert os.listdir(tree / "R/d") == []


def test_between_two_roots(root: Root, tree: Path, opener: Callable[[int], Opener]) -> None:
    """A name can be moved from one root to another."""
    other = open_root(str(tree / "out"), opener)
    rename((root, "b/t"), (other, "t"))
    assert (tree / "out/t").read_text() == "b/t"
    other.close()


def test_a_granted_file_is_replaced_and_kept(tree: Path, opener: Callable[[int], Opener]) -> None:
    """A root that is a file allows replacing that file and nothing beside it."""
    held = open_root(str(tree / "R/f"), opener)
    replace_file(held, "", b"new")
    with pytest.raises(NotADirectoryError):
        replace_file(held, "b/t", b"new")
    assert (tree / "R/f").read_text() == "new"
    held.close()
