"""Attack: `..`, and paths that only look like the granted prefix (cases 1, 7, 9)."""

import pytest

from .conftest import ALL, FILES, NAMING, MakeWorld, World


@pytest.mark.parametrize("path", ["..", "../R/f", "a/../../R/f", "../S", "a/../../out/new", "b/c/../../../S", "./.."])
async def test_a_step_above_the_root(world: World, path: str) -> None:
    """A step above R is refused for every operation, also one that comes back to R."""
    for operation in ALL:
        await world.expect_refused(operation, path)


@pytest.mark.parametrize("path", ["f", "./f", "a/../f", "./b//c/./../../f", "b/c/../c/../../f"])
async def test_dots_that_stay_inside(world: World, path: str) -> None:
    """The allowed twin: dots that stay inside reach the file, by a relative and by an absolute path."""
    assert await world.files.read_text(path) == "inside"
    assert await world.files.read_text(f"{world.inside}/{path}") == "inside"
    assert await world.files.read_text(f"/{world.inside}//{path}") == "inside"
    assert all(event.allowed for event in world.audited())


async def test_an_indirect_path_to_the_prefix(world: World) -> None:
    """An absolute path that reaches R indirectly by its text names what follows R."""
    assert await world.files.read_text(f"{world.base}/x/../R/f") == "inside"
    assert await world.files.read_text(f"{world.base}/out/.././R/b/../f") == "inside"


@pytest.mark.parametrize("path", ["{base}/R2/x", "{base}/R/../R2/x", "{base}/r/f", "{base}", "/", "{base}/R/../S"])
async def test_whole_components(world: World, path: str) -> None:
    """A sibling whose name begins with R, another case, and a directory above R are not granted."""
    for operation in ALL:
        await world.expect_refused(operation, path.format(base=world.base))


@pytest.mark.parametrize("path", ["b/.", "b/..", "b/", ".", "b/c/.", "./", "movable/", "nothing/"])
async def test_no_name_to_change(world: World, path: str) -> None:
    """A path that ends in a dot, two dots or a slash, and the root itself, is not renamed and not removed."""
    for operation in [name for name in NAMING if name != "mkdir"]:
        await world.expect_error(operation, path)


@pytest.mark.parametrize("path", ["b/.", "b/..", ".", "new/.", "new/.."])
async def test_no_name_to_make(world: World, path: str) -> None:
    """A directory is not made by such a path."""
    await world.expect_error("mkdir", path)


@pytest.mark.parametrize("path", ["b/", "new/", "b/.", "b/..", ".", "new/."])
async def test_no_name_to_create(world: World, path: str) -> None:
    """A file is not created by such a path."""
    for operation in ["open w", "open a", "open x", "write_bytes"]:
        await world.expect_error(operation, path)


async def test_a_slash_after_a_new_directory(world: World) -> None:
    """The allowed twin: mkdir takes a trailing slash."""
    await world.files.mkdir("new//")
    assert (world.inside / "new").is_dir()


@pytest.mark.parametrize("path", ["f/", "f/.", "f/..", "f/x"])
async def test_a_file_is_not_a_directory(world: World, path: str) -> None:
    """Nothing is opened below a file."""
    for operation in FILES:
        await world.expect_error(operation, path)


async def test_the_root_is_left(make_world: MakeWorld) -> None:
    """The root cannot be removed, renamed or replaced by its absolute name either."""
    world = make_world()
    for operation in ("remove", "remove tree", "rename from", "rename to"):
        await world.expect_error(operation, world.inside)
