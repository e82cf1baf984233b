"""The cgroup layer, with directories that look like a delegated cgroup v2."""

import os
from pathlib import Path

import pytest

from nyx_core.linux.cgroup import Cgroup
from nyx_core.sandbox import Confinement, LayerState, Limit, ResourceLimits

ASKED = Confinement(cgroup=True, limits=ResourceLimits(memory=Limit(1000, 2000), processes=Limit(3, 5)))


@pytest.fixture
def delegated(tmp_path: Path) -> Path:
    """A directory with the files of a cgroup, and a /proc/self that leads to it."""
    group = tmp_path / "sys/group"
    group.mkdir(parents=True)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (group / name).touch()
    (group / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "mounts").write_text(f"cgroup2 {tmp_path}/sys cgroup2 rw 0 0\n")
    (tmp_path / "cgroup").write_text("0::/group\n")
    return group


def layer(group: Path) -> Cgroup:
    return Cgroup(proc=str(group.parents[1]))


def test_a_delegated_cgroup_is_available(delegated: Path) -> None:
    """The survey names the cgroup and creates nothing."""
    before = sorted(os.listdir(delegated))
    report = layer(delegated).probe()
    assert (report.state, str(delegated) in report.reason) == (LayerState.ACTIVE, True)
    assert sorted(os.listdir(delegated)) == before


def test_not_requested(delegated: Path) -> None:
    """Nothing happens unless it's requested."""
    assert layer(delegated).apply(Confinement(), ()).state is LayerState.DISABLED


def test_a_child_that_cannot_be_entered_is_removed(delegated: Path) -> None:
    """A new directory here has no control files, as with a missing controller: it's removed again."""
    with pytest.raises(FileNotFoundError):
        layer(delegated).apply(ASKED, ())
    assert [entry.name for entry in delegated.iterdir() if entry.is_dir()] == []
    assert (delegated / "cgroup.procs").read_text() == str(os.getpid())


def test_missing_controllers_are_named(delegated: Path) -> None:
    """The report names the missing controllers and how to delegate them."""
    (delegated / "cgroup.controllers").write_text("cpu")
    report = layer(delegated).apply(ASKED, ())
    assert report.state is LayerState.UNAVAILABLE
    assert report.reason.endswith("lacks the controllers: memory, pids")
    assert "Delegate=yes" in report.remedy


def test_without_a_cgroup(tmp_path: Path) -> None:
    """A missing mount or an unreadable /proc is reported as unavailable."""
    assert "cannot be read" in Cgroup(proc=str(tmp_path)).probe().reason
    (tmp_path / "mounts").write_text("")
    (tmp_path / "cgroup").write_text("")
    assert Cgroup(proc=str(tmp_path)).probe().reason == "no cgroup v2 is mounted"
