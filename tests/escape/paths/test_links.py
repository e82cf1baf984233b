"""Attack: symbolic links that lead out, at the end, in the middle, behind a slash, dangling (cases 2 to 6, 8)."""

import errno
import os

import pytest

from .conftest import ALL, FILES, FOLLOWING, LOOKING, NAMING, OPERATIONS, SECRET, World

OUTWARD = ["../out", "{base}/out", "{base}/R/b", "../R/b", "b/../../out", "../missing", "{base}/missing"]


@pytest.mark.parametrize("tail", ["/", "/.", "/..", "/f", "/missing/f", "/../f"])
@pytest.mark.parametrize("target", OUTWARD)
async def test_through_a_link_to_the_outside(world: World, target: str, tail: str) -> None:
    """A link that leads out is refused for every operation if anything follows it, even only a slash."""
    world.link("l", target)
    for operation in ALL:
        await world.expect_refused(operation, "l" + tail)


@pytest.mark.parametrize("target", [*OUTWARD, "../S", "{base}/S", "../out/new", "{base}/R/f"])
async def test_a_link_to_the_outside_at_the_end(world: World, target: str) -> None:
    """An operation that follows links is refused if the link leads out, dangles, or is absolute, even into R."""
    world.link("l", target)
    for operation in FOLLOWING:
        await world.expect_refused(operation, "l")


@pytest.mark.parametrize("operation", FOLLOWING)
async def test_a_chain_of_links(world: World, operation: str) -> None:
    """`l -> a/b/x`, `a/b -> e`, `a/e -> ../../R` leads out by the third link."""
    world.link("l", "a/b/x")
    world.link("a/b", "e")
    world.link("a/e", "../../R")
    await world.expect_refused(operation, "l")


async def test_resolution_is_physical(world: World) -> None:
    """`n -> b/c`: `n/../t` is b/t. A link that lands exactly on R is inside, and one step more is outside."""
    world.link("n", "b/c")
    world.link("up", "b/c/../..")
    world.link("over", "b/c/../../..")
    assert await world.files.read_text("n/../t") == "inside"
    assert await world.files.read_text("up/f") == "inside"
    assert "f" in await world.files.iterdir("up/") or "up/f" in await world.files.iterdir("up/")
    for operation in ALL:
        await world.expect_refused(operation, "over/S")


@pytest.mark.parametrize("operation", FILES + LOOKING)
async def test_loops(world: World, operation: str) -> None:
    """A link to itself and a ring of three raise ELOOP, and `exists` returns false."""
    for name, target in (("self", "self"), ("x", "y"), ("y", "z"), ("z", "x")):
        world.link(name, target)
    for path in ("self", "x"):
        if operation == "exists":
            assert not await world.files.exists(path)
        elif operation == "open x":
            await world.expect_error(operation, path, FileExistsError)
        else:
            assert (await world.expect_error(operation, path)).errno == errno.ELOOP


async def test_exclusive_creation_over_a_link(world: World) -> None:
    """Mode x on any link raises EEXIST, and so does mkdir."""
    for number, target in enumerate(["../missing", "f", "{base}/S", "nothing"]):
        world.link(f"l{number}", target)
        for operation in ("open x", "mkdir"):
            await world.expect_error(operation, f"l{number}", FileExistsError)


@pytest.mark.parametrize("target", ["../S", "{base}/out", "f", "nothing", "b"])
async def test_names_are_changed_not_targets(world: World, target: str) -> None:
    """Rename and remove act on the link itself."""
    world.link("l", target)
    await world.files.rename("l", "l2")
    assert os.readlink(world.inside / "l2") == target.format(base=world.base)
    await world.files.rename("movable", "l2")
    assert (world.inside / "l2").read_text() == "inside"
    world.link("l", target)
    await world.files.remove("l")
    assert (world.base / "S").read_text() == SECRET
    assert (world.inside / "f").read_text() == "inside"
    assert (world.inside / "b").is_dir()


async def test_removing_a_tree_leaves_targets(world: World) -> None:
    """For a link in a tree, and for a tree that is a link, the link is removed and the target stays."""
    world.link("b/out", "{base}/out")
    world.link("b/a", "../a")
    world.link("l", "../out")
    await world.files.remove("b", tree=True)
    await world.files.remove("l", tree=True)
    assert (world.base / "out/f").read_text() == SECRET
    assert (world.inside / "a").is_dir()
    assert {"b", "l"}.isdisjoint(os.listdir(world.inside))


async def test_links_inside_work(world: World) -> None:
    """The allowed twin: files are read, written and created through links that stay inside."""
    world.link("l", "b/c/../c/f")
    world.link("new", "a/new")
    assert await world.files.read_text("l") == "inside"
    await world.files.write_text("l", "atomic")
    assert (world.inside / "b/c/f").read_text() == "atomic"
    assert (world.inside / "l").is_symlink()
    async with world.files.open("new", "w") as file:
        await file.write("through")
    assert (world.inside / "a/new").read_text() == "through"
    await world.files.write_text("new", "again")
    assert (world.inside / "a/new").read_text() == "again"
    assert all(event.allowed for event in world.audited())


@pytest.mark.parametrize("operation", NAMING)
async def test_a_link_in_the_middle_that_stays_inside(world: World, operation: str) -> None:
    """The allowed twin for operations on names: the directory is reached through a link inside."""
    world.link("n", "b/c")
    path = {"mkdir": "n/new", "rename to": "n/new"}.get(operation, "n/f")
    await OPERATIONS[operation](world.files, path)
    assert world.audited()[-1].allowed
