"""The room that every escape is tried from: what is granted, what is not, and the confinement that says so."""

import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from nyx_core.linux.libc import syscall
from nyx_core.sandbox import Confinement, Limit, ResourceLimits, confine

MIB = 1024 * 1024


class Attack(NamedTuple):
    """One line of the attack list, tried in one way.

    Attributes:
        line: the line of `kernel.md` that it belongs to.
        layer: the layer that refuses it.
        attempt: raises where it is refused; gets what `before` returned.
        twin: the allowed thing beside it; must not raise; gets the same.
        before: runs before sealing, for what an attacker might have inherited.
        root: only root can do it unconfined.
        answers: errno names, or beginnings of an error's text, that count as refused.
        killed: it is not refused but ends the process.
        free: why it may fail unconfined too; empty if it may not.
    """

    line: str
    layer: str
    attempt: Callable[[Any], object]
    twin: Callable[[Any], object]
    before: Callable[[], Any]
    root: bool
    answers: tuple[str, ...]
    killed: bool
    free: str


class Book:
    """The attacks of one module, by name."""

    def __init__(self, line: str, twin: Callable[[Any], object]) -> None:
        self.line = line
        self.twin = twin
        self.attacks: dict[str, Attack] = {}

    def attack(
        self,
        layer: str,
        *,
        twin: Callable[[Any], object] | None = None,
        before: Callable[[], Any] = lambda: None,
        root: bool = False,
        answers: tuple[str, ...] = ("EPERM", "EACCES"),
        killed: bool = False,
        free: str = "",
    ) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
        """Enter a function under its name."""

        def enter(function: Callable[[Any], object]) -> Callable[[Any], object]:
            self.attacks[function.__name__] = Attack(
                self.line, layer, function, twin or self.twin, before, root, answers, killed, free
            )
            return function

        return enter

    def cases(self) -> dict[str, Callable[[], object]]:
        """Each attack three times: `free`, `sealed`, and its `twin`, sealed."""
        found: dict[str, Callable[[], object]] = {}
        for name, attack in self.attacks.items():
            found[f"{name} free"] = partial(_play, attack, attack.attempt, False)
            found[f"{name} sealed"] = partial(_play, attack, attack.attempt, True)
            found[f"{name} twin"] = partial(_play, attack, attack.twin, True)
        return found


def _play(attack: Attack, act: Callable[[Any], object], sealed: bool) -> None:
    prepare()
    had = attack.before()
    if sealed:
        seal(tuple(had.kept) if hasattr(had, "kept") else ())
    act(had)


def prepare() -> None:
    """Lay out the working directory: `outside`, `readable` and `data`, each with a file in it."""
    for name in ("outside", "readable", "data"):
        os.makedirs(name, exist_ok=True)
        for leaf in ("file", "victim"):
            with open(f"{name}/{leaf}", "w") as file:
                file.write(f"{name} {leaf}")


def confinement(kept: tuple[int, ...] = (), *, native_code: bool = True) -> Confinement:
    """A sealed worker's confinement: reads below `readable`, writes below `data`, nothing else."""
    here = os.getcwd()
    return Confinement(
        limits=ResourceLimits(memory=Limit(512 * MIB, 512 * MIB)),
        readable=(f"{here}/readable",),
        writable=(f"{here}/data",),
        environment=("TZ",),
        keep_descriptors=(0, 1, 2, *kept),
        new_session=os.getsid(0) != os.getpid(),
        native_code=native_code,
    )


def seal(kept: tuple[int, ...] = ()) -> None:
    """Confine this process; no new native code either."""
    confine(confinement(kept, native_code=False))


def reach(name: str, *arguments: int | bytes | bytearray | None) -> str:
    """Whether the kernel itself looks at a call that carries nonsense.

    Returns its complaint; raises `OSError` for the answers that mean that it was stopped before.
    """
    try:
        return str(syscall(name, *arguments))
    except OSError as error:
        if os.strerror(error.errno or 0) in map(os.strerror, (1, 13, 38)):
            raise
        return str(error)


class Kept(NamedTuple):
    """Something made before sealing, and the descriptors of it that stay open."""

    value: Any
    kept: tuple[int, ...] = ()


def computing(_had: Any) -> None:
    """The twin of what has no harmless variant: computing and asking the time go on."""
    os.getpid()
    sum(range(10))


def unix_address(path: bytes) -> bytes:
    """A `sockaddr_un`."""
    return struct.pack("=H", socket.AF_UNIX) + path + b"\0"
