"""openat2 and the walk open the same file or fail in the same way, over generated trees. The walk is the oracle."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nyx_core.beneath.opening import open_file, status, status_by_walking
from nyx_core.beneath.root import Root, open_root
from nyx_core.beneath.walk import O_PATH, Opener, walking_opener

NOBODY = 65534
NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.sampled_from(["a", "b", "c", "a", "b", ".", "..", ""])
TAILS = st.sampled_from(["", "", "", "/", "/.", "/.."])
PATHS = st.builds(lambda steps, tail: "/".join(steps) + tail, st.lists(STEPS, min_size=1, max_size=6), TAILS)
TARGETS = st.one_of(PATHS, PATHS.map(lambda path: "../" + path), PATHS.map(lambda path: "/" + path))
TREE_PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
KINDS = st.one_of(
    st.just(("directory", "")),
    st.just(("file", "")),
    st.just(("fifo", "")),
    TARGETS.map(lambda target: ("link", target)),
)
TREES = st.lists(st.tuples(TREE_PATHS, KINDS, st.sampled_from([0o700, 0o700, 0o700, 0o000, 0o400, 0o500])), max_size=10)
FLAGS = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_WRONLY,
        os.O_RDWR | os.O_CREAT,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        os.O_RDONLY | os.O_DIRECTORY,
        O_PATH,
        O_PATH | os.O_DIRECTORY,
    ]
)

Tree = list[tuple[str, tuple[str, str], int]]
Outcome = tuple[str, object]


def build(base: str, tree: Tree) -> None:
    """Creates what is possible of a generated tree. Modes are set last, because they could prevent creating files."""
    inside = os.path.join(base, "R")
    os.makedirs(os.path.join(base, "a"))
    os.mkdir(inside)
    for entry, (kind, target), _ in tree:
        with suppress(OSError):
            path = os.path.join(inside, entry)
            if os.path.realpath(os.path.dirname(path)).startswith(inside):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _make(path, kind, target)
    for entry, (kind, _), mode in tree:
        path = os.path.join(inside, entry)
        if kind != "link" and not os.path.islink(path) and os.path.realpath(path) == path:
            with suppress(OSError):
                os.chmod(path, mode)


def _make(path: str, kind: str, target: str) -> None:
    if kind == "directory":
        os.mkdir(path)
    elif kind == "file":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.symlink(target, path)


def outcome(operation: Callable[[], int]) -> Outcome:
    """The inode that was opened, or the class and errno of the failure."""
    try:
        descriptor = operation()
    except OSError as error:
        return type(error).__name__, error.errno
    try:
        opened = os.fstat(descriptor)
        return "opened", (opened.st_dev, opened.st_ino, os.get_inheritable(descriptor))
    finally:
        os.close(descriptor)


@contextmanager
def made(tree: Tree, user: int | None) -> Iterator[str]:
    """A generated tree, owned by the user that will open it."""
    base = os.path.realpath(tempfile.mkdtemp())
    try:
        build(base, tree)
        for name in names_in(base) | {base} if user is not None else ():
            os.chown(name, user or 0, -1, follow_symlinks=False)
        yield base
    finally:
        for directory, names, _ in os.walk(base):
            for name in names:
                path = os.path.join(directory, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def identity(user: int | None) -> Iterator[None]:
    """Runs the block as another effective user, to whom permission bits apply."""
    if user is None:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


USERS = pytest.mark.parametrize(
    "user",
    [
        pytest.param(None, id="as it is"),
        pytest.param(
            NOBODY, id="ordinary", marks=pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be another user")
        ),
    ],
)
SETTINGS = settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def compare(
    base: str, user: int | None, first: Callable[[], int], second: Callable[[], int]
) -> tuple[Outcome, Outcome, set[str]]:
    """Both outcomes, each from the same state, and the names they created, which must be the same."""
    before = names_in(base)
    with identity(user):
        one = outcome(first)
    created = remove_new(base, before)
    with identity(user):
        two = outcome(second)
    assert remove_new(base, before) == created
    assert all(name.startswith(os.path.join(base, "R", "")) for name in created)
    return one, two, created


@USERS
@SETTINGS
@given(tree=TREES, paths=st.lists(st.tuples(PATHS, FLAGS), min_size=1, max_size=12))
def test_openat2_and_walk_agree(
    pure_openat2: Callable[[int], Opener], user: int | None, tree: Tree, paths: list[tuple[str, int]]
) -> None:
    """Any tree, path and flags give the same inode or the same error."""
    with made(tree, user) as base:
        root = os.open(os.path.join(base, "R"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fast, slow = pure_openat2(root), walking_opener(root)
        try:
            for path, flags in paths:
                wait = 0 if flags & O_PATH else os.O_NONBLOCK
                arguments = os.fsencode(path), flags | os.O_CLOEXEC | wait, 0o600
                one, two, created = compare(base, user, partial(fast, *arguments), partial(slow, *arguments))
                assert one == two or (created and one[0] == two[0] == "opened"), (path, oct(flags))
        finally:
            os.close(root)


@USERS
@SETTINGS
@given(tree=TREES, paths=st.lists(st.tuples(PATHS, FLAGS), min_size=1, max_size=12))
def test_a_judge_changes_no_outcome(user: int | None, tree: Tree, paths: list[tuple[str, int]]) -> None:
    """Opening in steps with a judge that allows everything has the same outcome as opening at once."""
    if user is not None and not os.stat("/").st_mode & 0o001:
        pytest.skip("the root directory of this machine is closed to ordinary users, and procfs with it")
    with made(tree, user) as base:
        root = open_root(os.path.join(base, "R"))
        try:
            for path, flags in paths:
                if flags & (os.O_DIRECTORY | O_PATH):
                    continue
                plain = partial(open_file, root, path, flags)
                one, two, created = compare(base, user, plain, partial(plain, judge=allow_all))
                assert one == two or (created and one[0] == two[0] == "opened"), (path, oct(flags))
                with identity(user):
                    assert same_status(root, path)
        finally:
            root.close()


@USERS
@SETTINGS
@given(tree=TREES, paths=st.lists(PATHS, min_size=1, max_size=12))
def test_both_statuses_agree(user: int | None, tree: Tree, paths: list[str]) -> None:
    """The status by walking, as on macOS, equals the status by O_PATH, as on Linux."""
    with made(tree, user) as base:
        root = open_root(os.path.join(base, "R"))
        try:
            for path in paths:
                with identity(user):
                    found = [status_outcome(partial(function, root, path)) for function in (status, status_by_walking)]
                assert found[0] == found[1], path
        finally:
            root.close()


def status_outcome(operation: Callable[[], os.stat_result]) -> Outcome:
    """The inode and mode of a status, or the class and errno of the failure."""
    try:
        result = operation()
    except OSError as error:
        return type(error).__name__, error.errno
    return "found", (result.st_ino, result.st_mode)


def allow_all(below: str, absolute: str) -> None:
    """A judge that allows everything."""
    assert absolute.endswith(below)


def same_status(root: Root, path: str) -> bool:
    """Whether a judge that allows everything leaves the status unchanged."""
    return status_outcome(partial(status, root, path)) == status_outcome(partial(status, root, path, allow_all))


def names_in(base: str) -> set[str]:
    return {os.path.join(where, name) for where, folders, files in os.walk(base) for name in folders + files}


def remove_new(base: str, before: set[str]) -> set[str]:
    """Removes what is new below `base` and returns its paths."""
    created = names_in(base) - before
    for path in created:
        os.unlink(path)
    return created
