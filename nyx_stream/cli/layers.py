"""Which layer enforces a rule or a limit, by isolation level. The table that `nyx plan` prints and the docs explain.

At a level with a sealed process the kernel enforces what this machine can; what it lacks is handed in as `missing`.
`guard` is the Python decision point in front of a capability; `kernel` refuses everything that does not come through
it; `host` is the framework that runs the calls. `nothing` is said plainly: such a limit is a wish at that level.
"""

from collections.abc import Collection
from dataclasses import fields

from nyx_stream.isolation.backend import Level
from nyx_stream.policy import Limits

RULE_KINDS = ("connect", "request", "read", "write", "env")

_BY_HOST = frozenset({"call_timeout", "setup_timeout", "concurrency", "queue"})
_BY_KERNEL = frozenset({"memory", "processes", "cpu_time"})

# Sealing layers that a rule needs, each on the system that has it; without one of them there is a way round the guard.
_LOCKS = frozenset({"seccomp", "seatbelt", "pledge", "kernel"})
_NEEDS = {
    "connect": _LOCKS,
    "request": _LOCKS,
    "read": _LOCKS | {"landlock"},
    "write": _LOCKS | {"landlock"},
    "env": frozenset({"environment", "kernel"}),
}


def layer_of_rule(kind: str, isolation: Level, missing: Collection[str] = ()) -> str:
    """Returns the layers that enforce a rule of `kind` (connect, request, read, write, env)."""
    if kind not in RULE_KINDS:
        raise ValueError(f"{kind!r} is no kind of rule")
    return "guard" if isolation == "inline" or not _NEEDS[kind].isdisjoint(missing) else "guard+kernel"


def layer_of_limit(name: str, isolation: Level, missing: Collection[str] = ()) -> str:
    """Returns the layer that enforces the limit `name`."""
    if name not in {field.name for field in fields(Limits)}:
        raise ValueError(f"{name!r} is no limit")
    limited = isolation != "inline" and "limits" not in missing
    if name in _BY_HOST:
        return "host"
    if name in _BY_KERNEL:
        return "kernel" if limited else "nothing"
    if name == "open_files" and limited:
        return "guard+kernel"  # beside what the files capability counts, every descriptor
    return "guard"
