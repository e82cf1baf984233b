"""Seals a worker, before any code of its plugin runs."""

import os
import sys
from contextlib import suppress
from dataclasses import replace

import psutil

from nyx_core.sandbox import Confinement, Network, ResourceLimits, SandboxError, SandboxReport, confine, prepare
from nyx_core.sandbox.platform import Platform
from nyx_stream.isolation.remote.wire.confinement import (
    DESCRIPTORS,
    FRAMEWORK,
    NO_LAYERS,
    REQUIRED_LAYERS,
    with_memory,
)
from nyx_stream.isolation.remote.wire.messages import Order, Sealed

NICE = 5
"""Nice value of a worker: a third of the weight of a process with 0 (sched(7))."""

_AHEAD = Confinement(
    limits=ResourceLimits(memory=None, open_files=None, processes=None),
    readable=("/",),
    network=Network.none(),
    keep_descriptors=DESCRIPTORS,
    working_directory="/",
    new_session=True,
    may_degrade=REQUIRED_LAYERS | {"process", "privileges", "namespaces", "cgroup"},
)
"""Only restrictions that every order has, since none can be undone. Sealing by the order reports what is missing."""


def seal_ahead() -> Platform | None:
    """Seals this process as far as possible before its order: all but limits and readable paths.

    The host doesn't rely on it. `seal` applies, tests and reports the order's confinement in full; most of that work
    has then been done already.

    Returns:
        What to pass to `seal`.
    """
    if sys.platform != "linux":  # other systems let a process confine itself only once
        return None
    lower_priority()  # not possible afterwards
    with suppress(SandboxError):
        confine(_AHEAD)
    return prepare(replace(_AHEAD, readable=(FRAMEWORK,)))


def seal(order: Order, prepared: Platform | None = None) -> Sealed:
    """Seals this process as ordered. It can't be undone.

    Raises:
        SandboxError: a layer isn't in force, or a witness wasn't refused. The process must not run the plugin.
    """
    if prepared is None:
        lower_priority()
    os.environ.update(order.env)
    baseline = _mapped_bytes()
    confinement = with_memory(order.confinement, baseline + order.memory)
    if NO_LAYERS in REQUIRED_LAYERS and confinement.may_degrade >= REQUIRED_LAYERS:  # nothing to apply, as allowed
        report = SandboxReport(sys.platform, "", "", policy_hash=confinement.digest())
    else:
        report = confine(confinement, prepared)
    return Sealed(report=report.to_dict(), baseline=baseline)


def lower_priority() -> None:
    """Moves this process to a new session, with a lower priority than its host has. It can't be undone.

    Otherwise a worker that spins gets as much processor time as the host, which then is late for everything. This isn't
    a protection: where the system doesn't allow it, the worker runs nevertheless. With autogroups Linux first divides
    processor time among sessions, each with its own nice value (sched(7)); without privileges these can only be
    changed now and then.
    """
    if sys.platform == "win32":
        return
    os.nice(max(0, NICE - os.getpriority(os.PRIO_PROCESS, 0)))
    if sys.platform != "linux":
        return
    if os.getsid(0) != os.getpid():
        os.setsid()
    with suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as group:
        group.write(f"{NICE}")


def _mapped_bytes() -> int:
    """Returns the size of this process's address space: proc_pid_statm(5), elsewhere from psutil."""
    if sys.platform != "linux":
        return int(psutil.Process().memory_info().vms)
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
