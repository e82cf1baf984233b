"""Attack: reaching a path that a deny rule excludes from an allowed prefix (case 14)."""

import os

import pytest

from nyx_stream.policy import SandboxPolicy

from .conftest import ALL, FOLLOWING, OPERATIONS, MakeWorld, World


@pytest.fixture
async def denied(make_world: MakeWorld) -> World:
    """R is allowed; R/secret, R/b/c and R/planned, which does not exist, are denied."""

    def deny(policy: SandboxPolicy) -> SandboxPolicy:
        return policy.deny_path_prefix("$DATA/secret", "$DATA/b/c", "$DATA/planned")

    return make_world(deny)


@pytest.mark.parametrize(
    "path", ["secret", "secret/f", "secret/new", "./a/../secret/f", "b/c/f", "planned", "planned/x"]
)
async def test_by_its_name(denied: World, path: str) -> None:
    """Every operation on a denied path is refused by the rule, also if it does not exist."""
    for operation in ALL:
        error = await denied.expect_refused(operation, path)
        assert error.rule is not None


@pytest.mark.parametrize(
    "path",
    ["l/f", "l/new", "up/secret/f", "deep/../c/f", "deep/../c/new", "lp/x", "l/.", "l/f/", "l/x/y/z", "n/../secret/q"],
)
async def test_through_a_link_in_the_middle(denied: World, path: str) -> None:
    """A link inside R, or `..` behind one, does not lead to it, and does not reveal what exists."""
    denied.link("l", "secret")
    denied.link("up", "b/..")
    denied.link("deep", "b/d")
    denied.link("lp", "planned")
    denied.link("n", "a")
    (denied.inside / "b/d").mkdir()
    for operation in ALL:
        await denied.expect_refused(operation, path)


@pytest.mark.parametrize("target", ["secret/f", "b/c/f", "a/../secret/f"])
async def test_through_a_link_at_the_end(denied: World, target: str) -> None:
    """A link to a denied file is not followed."""
    denied.link("l", target)
    for operation in FOLLOWING:
        await denied.expect_refused(operation, "l")


@pytest.mark.parametrize("operation", ["open w", "open a", "write_bytes", "write_text"])
async def test_creation_through_a_dangling_link(denied: World, operation: str) -> None:
    """Nothing is created in a denied directory through a dangling link."""
    denied.link("l", "secret/new")
    denied.link("p", "planned")
    await denied.expect_refused(operation, "l")
    await denied.expect_refused(operation, "p")


@pytest.mark.parametrize("path", ["b", "n/../b", "./b"])
async def test_its_parent_is_not_moved_away(denied: World, path: str) -> None:
    """The directory that a denied one lies in is not renamed, replaced or removed, by any of its names."""
    denied.link("n", "a")
    for operation in ["rename from", "remove tree", "rename to", "remove"]:
        await denied.expect_refused(operation, path)


async def test_its_parent_behind_a_link(denied: World) -> None:
    """The parent is not moved by a name that only the system can resolve to it."""
    (denied.inside / "b/c/deep").mkdir()
    denied.link("here", ".")
    for operation in ("rename from", "remove tree", "rename to"):
        await denied.expect_refused(operation, "here/b")
        await denied.expect_refused(operation, "here/secret")


@pytest.mark.parametrize("operation", ALL)
async def test_beside_it(denied: World, operation: str) -> None:
    """The allowed twin: paths beside the denied one are allowed."""
    path = {"iterdir": "a", "mkdir": "a/new", "open x": "a/new", "rename to": "a/new"}.get(operation, "b/t")
    await OPERATIONS[operation](denied.files, path)
    (event,) = denied.audited()
    assert event.allowed


async def test_a_rule_that_names_a_link(make_world: MakeWorld) -> None:
    """A deny rule that names a link also denies the target of the link."""
    world = make_world()
    world.link("alias", "secret")
    world.guard.update(world.guard.policy.deny_path_prefix("$DATA/alias"))
    await world.expect_refused("read_bytes", "secret/f")
    await world.expect_refused("rename from", "secret")
    assert await world.files.read_text("b/t") == "inside"


async def test_a_prefix_that_is_reached_by_a_link(make_world: MakeWorld) -> None:
    """A prefix granted by another name of R excludes what is denied by the name R, and the reverse."""
    base = make_world().base
    os.symlink("R", base / "R-alias")
    granted_by_alias = make_world(
        lambda policy: policy.allow_path_prefix(base / "R-alias").deny_path_prefix(base / "R/secret")
    )
    await granted_by_alias.expect_refused("read_bytes", base / "R-alias/secret/f")
    denied_by_alias = make_world(lambda policy: policy.deny_path_prefix(base / "R-alias/secret"))
    await denied_by_alias.expect_refused("read_bytes", "secret/f")
    assert await granted_by_alias.files.read_text(base / "R-alias/f") == "inside"


async def test_a_rule_that_comes_later(make_world: MakeWorld) -> None:
    """A rule that is added while the capability is in use applies from the next operation on."""
    world = make_world()
    world.link("l", "secret/f")
    assert await world.files.read_text("l") == "inside"
    world.guard.update(world.guard.policy.deny_path_prefix("$DATA/secret"))
    await world.expect_refused("read_text", "l")
