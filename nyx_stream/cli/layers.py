"""Which layer enforces a rule or a limit, by isolation level. The table that `nyx plan` prints and the docs explain.

`guard` is the Python decision point in front of a capability; `kernel` refuses everything that does not come through
it; `host` is the framework that runs the calls. `nothing` is said plainly: such a limit is a wish at that level.
"""

from dataclasses import fields

from nyx_stream.isolation.seam import Level
from nyx_stream.policy import Limits

RULE_KINDS = ("connect", "request", "read", "write", "env")

_BY_HOST = frozenset({"call_timeout", "setup_timeout", "concurrency", "queue"})
_BY_KERNEL = frozenset({"memory", "processes"})


def layer_of_rule(kind: str, isolation: Level) -> str:
    """Returns the layers that enforce a rule of `kind` (connect, request, read, write, env)."""
    if kind not in RULE_KINDS:
        raise ValueError(f"{kind!r} is no kind of rule")
    return "guard" if isolation == "inline" else "guard+kernel"


def layer_of_limit(name: str, isolation: Level) -> str:
    """Returns the layer that enforces the limit `name`."""
    if name not in {field.name for field in fields(Limits)}:
        raise ValueError(f"{name!r} is no limit")
    if name in _BY_HOST:
        return "host"
    if name in _BY_KERNEL:
        return "nothing" if isolation == "inline" else "kernel"
    if name == "open_files" and isolation != "inline":
        return "guard+kernel"  # beside what the files capability counts, every descriptor
    return "guard"
