"""Confining with prepared work: one case per promise. Each runs in its own child process."""

import errno
import os
from collections.abc import Callable
from typing import Any

from nyx_core.linux.landlock import Landlock
from nyx_core.linux.privileges import capability_sets
from nyx_core.sandbox import Confinement, Network, SandboxError, confine, prepare

STDLIB = os.path.dirname(os.__file__)


def wanted(**more: Any) -> Confinement:
    return Confinement(keep_descriptors=(0, 1, 2), **more)


def result_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def read_result(path: str) -> str:
    return result_of(lambda: os.close(os.open(path, os.O_RDONLY)))


def open_descriptors() -> list[int]:
    return [number for number in range(64) if result_of(lambda n=number: os.fstat(n)) == "done"]


def paths_of_both() -> Any:
    """The interpreter's paths and those of the confinement can be read, and nothing else."""
    os.mkdir("own")
    own = os.path.realpath("own")
    confine(wanted(readable=(own,)), prepare(wanted(readable=("/usr/share",))))
    return [
        read_result(own),
        read_result(f"{STDLIB}/os.py"),
        read_result("/usr/share"),
        read_result("/etc/passwd"),
        read_result("/"),
    ]


def nothing_stays_open() -> Any:
    """The ruleset's descriptor is closed, and is never in the report."""
    prepared = prepare(wanted(readable=("/usr/share",)))
    held = [number for number in open_descriptors() if number > 2]
    report = confine(wanted(readable=("/proc",)), prepared)
    return [len(held) >= 1, list(report.descriptors or ()), open_descriptors()]


def another_confinement() -> Any:
    """If the ruleset was prepared for other rights, it's discarded and the confinement applied as requested."""
    prepared = prepare(wanted(readable=("/",)))
    report = confine(wanted(readable=("/proc",)), prepared)
    landlock = report.layer("landlock")
    return [read_result("/etc/passwd"), landlock is not None and landlock.state.value, open_descriptors()]


def name_resolution_too() -> Any:
    """Prepared without name resolution, confined with a network: its files can still be read."""
    prepared = prepare(wanted(readable=("/usr/share",)))
    confine(wanted(readable=("/proc",), network=Network.tcp(connect=(443,))), prepared)
    return [read_result("/etc/hosts"), read_result("/etc/passwd"), open_descriptors()]


def nothing_restricted() -> Any:
    """A confinement that needs no ruleset closes the prepared one."""
    everything = wanted(readable=("/",), writable=("/",), executable=("/",), network=Network.unrestricted(), ipc=True)
    report = confine(everything, prepare(wanted(readable=("/usr/share",))))
    landlock = report.layer("landlock")
    return [landlock is not None and landlock.state.value, open_descriptors()]


def closed_twice() -> Any:
    """A descriptor that was taken isn't closed again, because its number may belong to another file."""
    prepared = prepare(wanted(readable=("/usr/share",)))
    confine(wanted(readable=("/proc", "/dev")), prepared)
    for _ in range(8):
        os.open(os.devnull, os.O_RDONLY)
    before = open_descriptors()
    ruleset = next(layer.prepared for layer in prepared.layers if isinstance(layer, Landlock)) if prepared else None
    if ruleset is not None:
        ruleset.close()
    return [len(before) > 8, open_descriptors() == before]


def tightened() -> Any:
    """As a worker does: everything but reads first, reads later. Both hold, and the second reports in full."""
    first = confine(wanted(readable=("/",)))
    before = read_result("/etc/passwd")
    second = confine(wanted(readable=("/proc",)), prepare(wanted(readable=("/usr/share",))))
    names = [[layer.name for layer in report.layers] for report in (first, second)]
    return [
        before,
        read_result("/etc/passwd"),
        names[0] == names[1],
        second.repeated,
        all(result.refused for result in second.witness),
        len(second.witness) > len(first.witness),
        capability_sets(),
    ]


def wider() -> Any:
    """A second confinement that requests more is an error, prepared or not."""
    confine(wanted(readable=("/proc",)))
    try:
        confine(wanted(readable=("/",)), prepare(wanted(readable=("/",))))
    except SandboxError as error:
        return str(error)
    return "widened"


CASES = {
    function.__name__: function
    for function in (
        paths_of_both,
        nothing_stays_open,
        another_confinement,
        name_resolution_too,
        nothing_restricted,
        closed_twice,
        tightened,
        wider,
    )
}
