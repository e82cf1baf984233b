"""How a worker is sealed: what the host asks for, what the worker does, and whether the host takes the answer.

The worker's part runs before any code of the plugin. Knows `nyx_core.sandbox`, and nothing of how it seals.
"""

import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil
from pydantic import TypeAdapter, ValidationError

from nyx_core.sandbox import (
    Confinement,
    LayerState,
    Limit,
    Network,
    ResourceLimits,
    SandboxError,
    SandboxReport,
    confine,
    prepare,
)
from nyx_core.sandbox.platform import Platform
from nyx_stream import text
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.isolation.process.priority import step_back
from nyx_stream.isolation.remote.host.required import NO_LAYERS, REQUIRED
from nyx_stream.isolation.remote.wire.messages import Order, Sealed
from nyx_stream.isolation.remote.wire.values import PASSING
from nyx_stream.policy.grant import Grant
from nyx_stream.policy.limits import Limits

CHANNEL = 3
"""The descriptor that a worker has its channel at; 0 to 2 are the standard streams."""
DESCRIPTORS = (0, 1, 2, CHANNEL)

FRAMEWORK = os.path.dirname(os.path.abspath(text.__file__))
"""Where `nyx_stream` lies."""

_OWN_FILES = 8
"""Descriptors of the worker itself, which do not count against the grant: those, and those of its event loop."""

_AHEAD = Confinement(
    limits=ResourceLimits(memory=None, open_files=None, processes=None),
    readable=("/",),
    network=Network.none(),
    keep_descriptors=DESCRIPTORS,
    working_directory="/",
    new_session=True,
    may_degrade=REQUIRED | {"process", "privileges", "namespaces", "cgroup"},
)
"""Asks for no more than any order does, for what is closed stays closed. What degrades, the order will tell."""

_OWN_CPU = 2
"""Seconds of processor time that a worker needs to start, which do not count either: most without a zygote."""


def cpu_seconds(limits: Limits) -> int:
    """Returns the processor time of a worker under `limits`, in the whole seconds that the system counts in."""
    return math.ceil(limits.cpu_time) + _OWN_CPU


def confinement_of(source: PluginSource, grant: Grant, *, degrade: bool = False) -> Confinement:
    """Returns what a worker is asked to put on itself; the memory limit is still to come.

    It may read the interpreter, the installed packages, the framework and the plugin's code; it may write nothing, and
    open no socket. All that a grant allows beyond that comes from the host, as descriptors.
    """
    limits = grant.limits
    cpu = cpu_seconds(limits)
    return Confinement(
        limits=ResourceLimits(
            memory=None,
            open_files=Limit.of(limits.open_files + _passing(grant) + _OWN_FILES),
            processes=Limit.of(limits.processes),
            cpu_seconds=Limit(cpu, cpu + 1),  # SIGXCPU, which says what it was; SIGKILL if that is ignored
        ),
        readable=tuple(dict.fromkeys((source.folder, source.root, FRAMEWORK))),
        network=Network.none(),
        environment=grant.env,
        keep_descriptors=DESCRIPTORS,
        working_directory="/",
        new_session=True,
        may_degrade=REQUIRED | {"namespaces", "cgroup"} if degrade else frozenset({"namespaces", "cgroup"}),
    )


def _passing(grant: Grant) -> int:
    """Descriptors that the host may have passed beside open files.

    A connection has one for its bytes and one to let go by, an exchange one for each body; whole reads, writes and
    listings take one while they last. A worker without room for a descriptor that it is sent is ended.
    """
    manifest = grant.manifest
    network = 4 * grant.limits.connections if manifest.connect or manifest.request else 0
    return network + (PASSING if manifest.paths or network else 0)


def seal_ahead() -> Platform | None:
    """Seals this process, for good, as far as can be before its order: all but limits and what may be read.

    Nothing is taken on trust from it: the order's confinement is applied, tried and reported in full all the same, and
    decides alone whether the process is fit. It finds less left to do, and its ways trodden.

    Returns:
        What `seal` is to be given.
    """
    if sys.platform != "linux":  # elsewhere a process can be confined once only
        return None
    step_back()  # afterwards it could not
    with suppress(SandboxError):
        confine(_AHEAD)
    return prepare(replace(_AHEAD, readable=(FRAMEWORK,)))


def seal(order: Order, prepared: Platform | None = None) -> Sealed:
    """Seals this process, for good.

    Raises:
        SandboxError: a layer does not hold, or a witness got through. The process is unfit.
    """
    if prepared is None:
        step_back()
    os.environ.update(order.env)
    baseline = _mapped()
    confinement = _limited(order.confinement, baseline + order.memory)
    if NO_LAYERS in REQUIRED and confinement.may_degrade >= REQUIRED:  # there is nothing to apply, and that is allowed
        report = SandboxReport(sys.platform, "", "", policy_hash=confinement.digest())
    else:
        report = confine(confinement, prepared)
    return Sealed(report=report.to_dict(), baseline=baseline)


class SealRefused(Exception):
    """The host does not take a worker's report."""


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    state: str
    reason: str
    stand_in: str


@dataclass(frozen=True, slots=True)
class _Witness:
    refused: bool


@dataclass(frozen=True, slots=True)
class _Report:
    """What is read of a report; the rest of it is for people."""

    policy_hash: str
    layers: list[_Layer]
    witness: list[_Witness]
    descriptors: list[int] | None


_REPORT = TypeAdapter(_Report)


def judge(order: Order, sealed: Sealed) -> tuple[tuple[str, str], ...]:
    """Returns the layers that are not in force, each with the reason: none, unless the order allowed that.

    Raises:
        SealRefused: the report is not what was asked for.
    """
    try:
        report = _REPORT.validate_python(sealed.report)
    except ValidationError as error:
        raise SealRefused(f"its report cannot be read: {error.error_count()} faults") from None
    if report.policy_hash != _limited(order.confinement, sealed.baseline + order.memory).digest():
        raise SealRefused("it reports another confinement than was ordered")
    states = {layer.name: layer for layer in report.layers}
    missing = []
    for name in sorted(REQUIRED):
        layer = states.get(name)
        if layer is None or (layer.state != LayerState.ACTIVE.value and not layer.stand_in):
            reason = layer.reason if layer is not None else "not reported"
            if name not in order.confinement.may_degrade:
                raise SealRefused(f"{name} is not in force: {reason}")
            missing.append((name, reason))
    # Without a layer that refuses there is nothing to try; what was tried must have been refused all the same.
    if not (report.witness or missing) or not all(result.refused for result in report.witness):
        raise SealRefused("no witness, or one that got through")
    counted = not any(name == "descriptors" for name, _ in missing)
    if counted and report.descriptors != list(DESCRIPTORS):
        raise SealRefused(f"it holds the descriptors {report.descriptors}, not {list(DESCRIPTORS)}")
    return tuple(missing)


def _limited(confinement: Confinement, memory: int) -> Confinement:
    return replace(confinement, limits=replace(confinement.limits, memory=Limit.of(memory)))


def _mapped() -> int:
    """Bytes of address space of this process; proc_pid_statm(5), elsewhere as psutil tells."""
    if sys.platform != "linux":
        return int(psutil.Process().memory_info().vms)
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
