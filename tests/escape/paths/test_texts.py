"""Attack: path texts and objects that misrepresent themselves (cases 10, 11, 18)."""

import errno
import os
from contextlib import suppress
from typing import Any

import pytest

from nyx_stream.guard import SandboxGuard
from nyx_stream.policy import SandboxPolicy

from .conftest import ALL, OPERATIONS, SECRET, World


@pytest.mark.parametrize("path", ["f\0g", "\0", "f\0", "a/\0/f", ""])
async def test_nul_and_nothing(world: World, path: str) -> None:
    """A NUL does not end a name, and the empty path is refused."""
    for operation in ALL:
        await world.expect_refused(operation, path)


@pytest.mark.parametrize("path", ["n" * 300, "a/" + "n" * 300, "a/../" * 840 + "f"])
async def test_too_long(world: World, path: str) -> None:
    """A name or a path that is too long raises the system's error."""
    for operation in ALL:
        assert (await world.expect_error(operation, path)).errno == errno.ENAMETOOLONG


async def test_names_that_are_not_utf_8(world: World) -> None:
    """A name that is not UTF-8 works; a text that cannot be encoded as a name is refused."""
    await world.files.write_text("\udcff", "x")
    assert os.path.exists(os.fsencode(world.inside) + b"/\xff")  # noqa: ASYNC240
    assert "\udcff" in await world.files.iterdir(".")
    await world.expect_refused("read_bytes", "\ud800")


class TwoFaced(os.PathLike[str]):
    """Returns `f` the first time and another path later."""

    def __init__(self, then: str) -> None:
        self.asked = 0
        self.then = then

    def __fspath__(self) -> str:
        self.asked += 1
        return "a/f" if self.asked == 1 else self.then


@pytest.mark.parametrize("operation", ALL)
async def test_an_object_is_asked_once(world: World, operation: str) -> None:
    """A path object is converted to text only once."""
    path = TwoFaced(str(world.base / "S"))
    with suppress(FileNotFoundError, NotADirectoryError):
        await OPERATIONS[operation](world.files, path)
    assert path.asked == 1
    assert (world.base / "S").read_text() == SECRET


class Liar(str):
    """A str whose every method pretends that it is below the prefix."""

    def startswith(self, *_: Any) -> bool:
        return True

    def __str__(self) -> str:
        return "f"

    def __eq__(self, _: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("f")

    def encode(self, *_: Any) -> bytes:
        return b"f"

    def split(self, *_: Any) -> list[str]:  # type: ignore[override]
        return ["f"]

    def rpartition(self, *_: Any) -> tuple[str, str, str]:
        return ("", "", "f")

    def replace(self, *_: Any) -> str:
        return "f"


async def test_a_subclass_of_text(world: World) -> None:
    """The characters of a str count, not what the methods of its class return."""
    for operation in ALL:
        await world.expect_refused(operation, Liar(world.base / "S"))
        await world.expect_refused(operation, Liar("../S"))


class PathOfLiar(os.PathLike[str]):
    def __fspath__(self) -> str:
        return Liar("../S")


async def test_an_object_that_answers_with_a_subclass(world: World) -> None:
    """The same holds for the str that a path object returns."""
    for operation in ALL:
        await world.expect_refused(operation, PathOfLiar())


@pytest.mark.parametrize(
    "path",
    [
        "CON", "nul.txt", "COM1", "COM\u00b9", "f::$DATA", "C:rel", "\\\\?\\C:\\app\\x", "\\\\server\\share\\x",
        "PROGRA~1", "x.", "x ", "C:\\app\\..\\other\\x", "C:/app/../other", "C:\\app2\\x", "sub\\..\\..\\x", "\\app\\x",
        "C:\\app\\sub/../../x", "\\??\\C:\\app\\x", "//./C:/app/x", "C:\\app\\AUX.h\\x", "C:\\app\\f:s",
    ],
)  # fmt: skip
def test_windows_texts(path: str) -> None:
    """With the Windows flavour, on any platform: C:\\app grants none of these."""
    guard = SandboxGuard(
        SandboxPolicy.locked_down().allow_path_prefix("C:\\app"), places={"$DATA": "C:\\app"}, flavour="windows"
    )
    assert not guard.decide_path(path, "r").allowed


@pytest.mark.parametrize("path", ["C:\\app\\x", "c:/APP/sub\\x", "sub\\x", "C:\\app\\a\\..\\x", "C:\\other\\..\\app"])
def test_windows_twins(path: str) -> None:
    """The allowed twins: either separator and any case."""
    guard = SandboxGuard(
        SandboxPolicy.locked_down().allow_path_prefix("C:\\app"), places={"$DATA": "C:\\app"}, flavour="windows"
    )
    assert guard.decide_path(path, "r").allowed


def test_macos_spellings() -> None:
    """On macOS the composed and the decomposed spelling, in any case, are one name to a deny rule."""
    policy = SandboxPolicy.locked_down().allow_path_prefix("/data").deny_path_prefix("/data/caf\u00e9")
    guard = SandboxGuard(policy, flavour="macos")
    for name in ("caf\u00e9", "cafe\u0301", "CAFE\u0301", "Caf\u00c9/x"):
        assert not guard.decide_path(f"/data/{name}", "r").allowed
    assert guard.decide_path("/data/cafe", "r").allowed
