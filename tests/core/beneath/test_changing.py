"""Changing names below R: each acts on the name, none leads out, and a judge is asked before anything changes."""

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


def picture(place: Path) -> list[tuple[str, int, int]]:
    found = []
    for where, folders, files in os.walk(place):
        for name in folders + files:
            seen = os.lstat(os.path.join(where, name))
            found.append((os.path.join(where, name), seen.st_ino, seen.st_size))
    return sorted(found)


class Refusal(Exception):
    """What the judge of these tests raises."""


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_the_judge_comes_first(root: Root, place: Path, operation: str) -> None:
    """The judge is told the canonical place, and when it refuses nothing has changed and nothing stays open."""
    os.symlink("b/c", place / "R/l")
    path, wanted = {"list": ("l/../d", "b/d"), "make": ("l/new", "b/c/new")}.get(operation, ("l/f", "b/c/f"))
    before, held = picture(place), len(os.listdir("/dev/fd"))
    seen = []

    def judge(below: str, absolute: str) -> None:
        seen.append((below, absolute))
        raise Refusal

    with pytest.raises(Refusal):
        OPERATIONS[operation](root, path, judge=judge)
    assert seen == [(wanted, os.path.join(os.path.realpath(place / "R"), wanted))]
    assert picture(place) == before
    assert len(os.listdir("/dev/fd")) == held


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_judge_that_agrees(root: Root, place: Path, operation: str) -> None:
    """With a judge that has no objection, the operation is done."""
    path = {"list": "b/d", "make": "b/new", "remove": "b/t"}.get(operation, "b/c/f")
    seen: list[str] = []
    OPERATIONS[operation](root, path, judge=lambda below, absolute: seen.append(below))
    assert seen


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("path", ["..", "../out/f", "out/../../out/f", "o/f", "o/new", "/b"])
def test_nothing_leads_out(root: Root, place: Path, operation: str, path: str) -> None:
    """Every operation on a path that leads out is an escape and changes nothing."""
    os.symlink("../out", place / "R/o")
    os.mkdir(place / "R/out")
    before = picture(place)
    with pytest.raises(EscapesRoot):
        OPERATIONS[operation](root, path)
    assert picture(place) == before


def test_replacing(root: Root, place: Path) -> None:
    """A replaced file keeps its mode, a link to it stays a link, another hard link keeps the old content."""
    os.chmod(place / "R/b/t", 0o640)
    os.link(place / "R/b/t", place / "out/hard")
    os.symlink("b/t", place / "R/l")
    replace_file(root, "l", b"new")
    assert (place / "R/b/t").read_bytes() == b"new"
    assert (place / "R/b/t").stat().st_mode & 0o777 == 0o640
    assert (place / "out/hard").read_text() == "b/t"
    assert os.path.islink(place / "R/l")
    with pytest.raises(NotPlain):
        replace_file(root, "fifo", b"")
    with pytest.raises(IsADirectoryError):
        replace_file(root, "b", b"")
    assert sorted(os.listdir(place / "R")) == ["a", "b", "f", "fifo", "l"]


def test_a_failed_replacement_leaves_nothing(root: Root, place: Path) -> None:
    """When the last step fails, the temporary file is gone."""
    os.mkdir(place / "R/d")
    long_name = "n" * 300
    with pytest.raises(OSError, match="too long"):
        replace_file(root, f"d/{long_name}", b"x")
    assert os.listdir(place / "R/d") == []


def test_between_two_roots(root: Root, place: Path, way: Callable[[int], Opener]) -> None:
    """A name is moved from one root to another."""
    other = open_root(str(place / "out"), way)
    rename((root, "b/t"), (other, "t"))
    assert (place / "out/t").read_text() == "b/t"
    other.close()


def test_a_granted_file_is_replaced_and_kept(place: Path, way: Callable[[int], Opener]) -> None:
    """Of a root that is a file, the file can be replaced, and nothing beside it changed."""
    held = open_root(str(place / "R/f"), way)
    replace_file(held, "", b"new")
    with pytest.raises(NotADirectoryError):
        replace_file(held, "b/t", b"new")
    assert (place / "R/f").read_text() == "new"
    held.close()
