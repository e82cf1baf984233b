"""Confining with what was done ahead: one case per promise. Each runs in a child of its own."""

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


def answer(act: Callable[[], Any]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def reads(path: str) -> str:
    return answer(lambda: os.close(os.open(path, os.O_RDONLY)))


def open_now() -> list[int]:
    return [number for number in range(64) if answer(lambda n=number: os.fstat(n)) == "done"]


def paths_of_both() -> Any:
    """What was begun with and what came with the confinement may be read, and nothing else."""
    os.mkdir("own")
    own = os.path.realpath("own")
    confine(wanted(readable=(own,)), prepare(wanted(readable=("/usr/share",))))
    return [reads(own), reads(f"{STDLIB}/os.py"), reads("/usr/share"), reads("/etc/passwd"), reads("/")]


def nothing_stays_open() -> Any:
    """The ruleset's descriptor is among those that are gone, and was never among those that are told."""
    prepared = prepare(wanted(readable=("/usr/share",)))
    held = [number for number in open_now() if number > 2]
    report = confine(wanted(readable=("/proc",)), prepared)
    return [len(held) >= 1, list(report.descriptors or ()), open_now()]


def another_confinement() -> Any:
    """What was begun for other rights is left: the confinement that came is what holds."""
    prepared = prepare(wanted(readable=("/",)))
    report = confine(wanted(readable=("/proc",)), prepared)
    landlock = report.layer("landlock")
    return [reads("/etc/passwd"), landlock is not None and landlock.state.value, open_now()]


def names_too() -> Any:
    """Begun without the files of name resolution, confined with a network: they may be read all the same."""
    prepared = prepare(wanted(readable=("/usr/share",)))
    confine(wanted(readable=("/proc",), network=Network.tcp(connect=(443,))), prepared)
    return [reads("/etc/hosts"), reads("/etc/passwd"), open_now()]


def nothing_restricted() -> Any:
    """A confinement that needs no ruleset closes the one that was begun."""
    everything = wanted(readable=("/",), writable=("/",), executable=("/",), network=Network.unrestricted(), ipc=True)
    report = confine(everything, prepare(wanted(readable=("/usr/share",))))
    landlock = report.layer("landlock")
    return [landlock is not None and landlock.state.value, open_now()]


def dropped_twice() -> Any:
    """What was handed out is not touched again: a descriptor of the same number is somebody else's by then."""
    prepared = prepare(wanted(readable=("/usr/share",)))
    confine(wanted(readable=("/proc", "/dev")), prepared)
    for _ in range(8):
        os.open(os.devnull, os.O_RDONLY)
    before = open_now()
    ruleset = next(layer.prepared for layer in prepared.layers if isinstance(layer, Landlock)) if prepared else None
    if ruleset is not None:
        ruleset.close()
    return [len(before) > 8, open_now() == before]


def tightened() -> Any:
    """What a worker does: everything but reads first, reads when it is told; both hold, the second reports in full."""
    first = confine(wanted(readable=("/",)))
    before = reads("/etc/passwd")
    second = confine(wanted(readable=("/proc",)), prepare(wanted(readable=("/usr/share",))))
    names = [[layer.name for layer in report.layers] for report in (first, second)]
    return [
        before,
        reads("/etc/passwd"),
        names[0] == names[1],
        second.repeated,
        all(result.refused for result in second.witness),
        len(second.witness) > len(first.witness),
        capability_sets(),
    ]


def wider() -> Any:
    """A second confinement that asks for more is an error, prepared or not."""
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
        names_too,
        nothing_restricted,
        dropped_twice,
        tightened,
        wider,
    )
}
