"""Puts the process into a new cgroup, if one is delegated. Optional. cgroups(7), cgroup v2.

Unlike rlimits, the limits count resident memory and tasks of the whole cgroup, so they include children.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from nyx_core.sandbox.report import LayerReport, LayerState

if TYPE_CHECKING:
    from nyx_core.sandbox.confinement import Confinement, ResourceLimits

NEEDED = ("memory", "pids")
REMEDY = "cgroup v2 with the controllers memory and pids delegated, e.g. systemd-run --user --scope -p Delegate=yes"


def own_cgroup(mounts: str, membership: str) -> str | None:
    """Directory of this process's v2 cgroup, from the contents of /proc/self/mounts and /proc/self/cgroup."""
    roots = [fields[1] for line in mounts.splitlines() if (fields := line.split())[2:3] == ["cgroup2"]]
    paths = [line[3:] for line in membership.splitlines() if line.startswith("0::")]
    if not roots or not paths:
        return None
    return os.path.normpath(roots[0] + "/" + paths[0].lstrip("/"))


def settings(limits: ResourceLimits) -> dict[str, str]:
    """What to write into the files of the new cgroup."""
    wanted: dict[str, str] = {}
    if limits.memory is not None:
        wanted |= {"memory.high": str(limits.memory.soft), "memory.max": str(limits.memory.hard)}
    if limits.processes is not None:
        wanted["pids.max"] = str(limits.processes.hard)
    return wanted


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Cgroup(NamedTuple):
    """The layer. `proc` is the path of /proc/self."""

    proc: str = "/proc/self"
    name: str = "cgroup"

    def probe(self) -> LayerReport:
        """Whether the current cgroup is delegated and has the controllers."""
        parent, report = self._parent()
        return report or LayerReport(self.name, LayerState.ACTIVE, f"{parent} is delegated")

    def apply(self, wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        """Make a child cgroup, move this process into it, and set its limits.

        The move comes first, because a cgroup that has processes can't enable controllers for its children (cgroups(7),
        "no internal processes"). If a later step fails, the process moves back and the child is removed.
        """
        if not wanted.cgroup:
            return LayerReport(self.name, LayerState.DISABLED, "not requested")
        parent, report = self._parent()
        if report is not None:
            return report
        child = f"{parent}/nyx-{os.getpid()}"
        os.mkdir(child)
        try:
            _write(f"{child}/cgroup.procs", str(os.getpid()))
            _write(f"{parent}/cgroup.subtree_control", " ".join(f"+{name}" for name in NEEDED))
            for name, value in settings(wanted.limits).items():
                _write(f"{child}/{name}", value)
        except OSError as error:
            _write(f"{parent}/cgroup.procs", str(os.getpid()))
            os.rmdir(child)
            if error.errno == errno.EBUSY:
                return self._unavailable(f"{parent} has other processes")
            raise
        return LayerReport(self.name, LayerState.ACTIVE, f"in {child}", facts=tuple(settings(wanted.limits).items()))

    def _parent(self) -> tuple[str, LayerReport | None]:
        try:
            parent = own_cgroup(_read(f"{self.proc}/mounts"), _read(f"{self.proc}/cgroup"))
            controllers = [] if parent is None else _read(f"{parent}/cgroup.controllers").split()
        except OSError as error:
            return "", self._unavailable(f"cannot be read: {error.strerror}")
        if parent is None:
            return "", self._unavailable("no cgroup v2 is mounted")
        missing = [name for name in NEEDED if name not in controllers]
        if missing:
            return "", self._unavailable(f"{parent} lacks the controllers: {', '.join(missing)}")
        if not os.access(parent, os.W_OK):
            return "", self._unavailable(f"{parent} is not delegated to uid {os.geteuid()}")
        return parent, None

    def _unavailable(self, reason: str) -> LayerReport:
        return LayerReport(self.name, LayerState.UNAVAILABLE, reason, REMEDY)


def _write(path: str, text: str) -> None:
    # Without O_CREAT: a missing file means a missing controller.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
