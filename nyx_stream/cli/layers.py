"""Which layer enforces a rule or a limit, by isolation level: the table that `nyx plan` prints and the docs explain.

`guard` is the Python check in front of a capability. `kernel` refuses everything that bypasses it, as far as this
machine can; the layers that it lacks are passed as `missing`. `host` is the framework that runs the calls. `nothing`
means that the limit isn't enforced at that level.
"""

from collections.abc import Collection
from dataclasses import fields

from nyx_stream.isolation.backend import Level
from nyx_stream.policy import Limits

RULE_KINDS = ("connect", "request", "read", "write", "env")

_BY_HOST = frozenset({"call_timeout", "setup_timeout", "concurrency", "queue"})
_BY_KERNEL = frozenset({"memory", "processes", "cpu_time"})

# The sealing layers that a rule needs, for every system. If one is missing, the guard can be bypassed.
_SYSTEM_CALL_FILTERS = frozenset({"seccomp", "seatbelt", "pledge", "kernel"})
_NEEDS = {
    "connect": _SYSTEM_CALL_FILTERS,
    "request": _SYSTEM_CALL_FILTERS,
    "read": _SYSTEM_CALL_FILTERS | {"landlock"},
    "write": _SYSTEM_CALL_FILTERS | {"landlock"},
    "env": frozenset({"environment", "kernel"}),
}


def layer_of_rule(kind: str, isolation: Level, missing: Collection[str] = ()) -> str:
    """Returns the layers that enforce a rule of `kind` (connect, request, read, write, env)."""
    if kind not in RULE_KINDS:
        raise ValueError(f"{kind!r} isn't a kind of rule")
    return "guard" if isolation == "inline" or not _NEEDS[kind].isdisjoint(missing) else "guard+kernel"


def layer_of_limit(name: str, isolation: Level, missing: Collection[str] = ()) -> str:
    """Returns the layer that enforces the limit `name`."""
    if name not in {field.name for field in fields(Limits)}:
        raise ValueError(f"{name!r} isn't a limit")
    kernel_limits = isolation != "inline" and "limits" not in missing
    if name in _BY_HOST:
        return "host"
    if name in _BY_KERNEL:
        return "kernel" if kernel_limits else "nothing"
    if name == "open_files" and kernel_limits:
        return "guard+kernel"  # the files capability counts its own files, the kernel every descriptor
    return "guard"
