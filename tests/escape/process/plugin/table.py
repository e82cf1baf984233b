"""The table of attacks: each with its line in the attack list, the layer that refuses it, and its allowed twin."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

Act = Callable[[Any], Awaitable[object]]


class Attack(NamedTuple):
    """One attack. `layer` is what refuses it: guard, seccomp, landlock, capabilities, limits, or the kernel's own
    rules."""

    line: str
    layer: str
    act: Act
    twin: Act
    answers: tuple[str, ...]


TABLE: dict[str, Attack] = {}
_ANSWERS = {"guard": ("FilesystemDenied", "NetworkDenied", "HttpDenied"), "kernel": ("EINVAL", "EBADF", "EISCONN")}


def attack(line: str, layer: str, *, twin: Act, answers: tuple[str, ...] = ()) -> Callable[[Act], Act]:
    """Registers an attack under the name of its function. `answers` are names of errors or of errnos."""

    def enter(act: Act) -> Act:
        TABLE[act.__name__] = Attack(line, layer, act, twin, answers or _ANSWERS.get(layer, ("EPERM", "EACCES")))
        return act

    return enter
