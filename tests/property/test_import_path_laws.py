"""Laws of protected import paths: the look-up agrees with a comparison with every protected path."""

import os

from hypothesis import given
from hypothesis import strategies as st

from nyx_stream.capabilities.import_paths import ImportPaths, path_key, touches

NAMES = st.sampled_from(["a", "b", "ab", "a.b", "..", ".", ""])
PATHS = st.lists(NAMES, max_size=5).map(lambda names: "/nyx-nowhere" + "".join(f"/{name}" for name in names))
ROOTED = st.one_of(PATHS, st.sampled_from(["/", "//", "/nyx-nowhere", "/nyx-nowher"]))


@given(st.lists(ROOTED, max_size=6), ROOTED, st.sampled_from(["write", "move"]))
def test_the_look_up_agrees_with_comparing_each_path(protected, path, access):
    """For every spelling of a path, and also if a root is protected."""
    keys = [path_key(own) for given in protected for own in (given, os.path.realpath(given))]
    expected = any(touches(own, path_key(path), access) for own in keys)
    assert ImportPaths(protected).touched_by(path, access) is expected


@given(st.lists(ROOTED, min_size=1, max_size=4), ROOTED)
def test_reading_touches_nothing(protected, path):
    """For every set of protected paths."""
    assert not ImportPaths(protected).touched_by(path, "read")


@given(st.lists(ROOTED, max_size=4), st.lists(ROOTED, max_size=4), ROOTED)
def test_paths_added_later_are_protected_too(one, other, path):
    """Adding paths later is the same as starting with all of them."""
    grown = ImportPaths(one)
    grown.protect(other)
    assert grown.touched_by(path, "move") is ImportPaths([*one, *other]).touched_by(path, "move")
    assert bool(grown) is bool(one or other)
