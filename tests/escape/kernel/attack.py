"""An attack on the kernel's walls, and the sealed process that attempts it: its files, grants and confinement."""

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
    """One attack.

    Attributes:
        section: the section of `kernel.md` that it belongs to.
        layer: the layer that refuses it.
        attempt: raises if it's refused; gets the result of `setup`.
        twin: a similar operation that is allowed and must not raise; gets the same.
        setup: runs before sealing, and returns what the process inherits.
        root: only root can do it unconfined.
        answers: errno names, or beginnings of an error's text, that count as refused.
        killed: it kills the process instead of being refused.
        may_fail_unconfined: the reason why it may fail unconfined too, if it may.
    """

    section: str
    layer: str
    attempt: Callable[[Any], object]
    twin: Callable[[Any], object]
    setup: Callable[[], Any]
    root: bool
    answers: tuple[str, ...]
    killed: bool
    may_fail_unconfined: str


class AttackList:
    """The attacks of one module, by name."""

    def __init__(self, section: str, twin: Callable[[Any], object]) -> None:
        self.section = section
        self.twin = twin
        self.attacks: dict[str, Attack] = {}

    def add(
        self,
        layer: str,
        *,
        twin: Callable[[Any], object] | None = None,
        setup: Callable[[], Any] = lambda: None,
        root: bool = False,
        answers: tuple[str, ...] = ("EPERM", "EACCES"),
        killed: bool = False,
        may_fail_unconfined: str = "",
    ) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
        """A decorator that adds a function under its name."""

        def decorate(function: Callable[[Any], object]) -> Callable[[Any], object]:
            self.attacks[function.__name__] = Attack(
                self.section, layer, function, twin or self.twin, setup, root, answers, killed, may_fail_unconfined
            )
            return function

        return decorate

    def cases(self) -> dict[str, Callable[[], object]]:
        """Each attack three times: `unconfined`, `sealed`, and its sealed `twin`."""
        found: dict[str, Callable[[], object]] = {}
        for name, attack in self.attacks.items():
            found[f"{name} unconfined"] = partial(_run, attack, attack.attempt, False)
            found[f"{name} sealed"] = partial(_run, attack, attack.attempt, True)
            found[f"{name} twin"] = partial(_run, attack, attack.twin, True)
        return found


def _run(attack: Attack, act: Callable[[Any], object], sealed: bool) -> None:
    prepare()
    inherited = attack.setup()
    if sealed:
        seal(tuple(inherited.kept) if hasattr(inherited, "kept") else ())
    act(inherited)


def prepare() -> None:
    """Create the directories `outside`, `readable` and `data`, each with two files."""
    for name in ("outside", "readable", "data"):
        os.makedirs(name, exist_ok=True)
        for leaf in ("file", "victim"):
            with open(f"{name}/{leaf}", "w") as file:
                file.write(f"{name} {leaf}")


def confinement(kept: tuple[int, ...] = (), *, native_code: bool = True) -> Confinement:
    """A sealed worker's confinement: may read below `readable` and write below `data`."""
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
    """Confine this process, without new native code."""
    confine(confinement(kept, native_code=False))


def call_kernel(name: str, *arguments: int | bytes | bytearray | None) -> str:
    """Make a system call with invalid arguments, to see whether it gets to the kernel.

    Returns the kernel's answer; raises `OSError` for errnos that mean that it was stopped before.
    """
    try:
        return str(syscall(name, *arguments))
    except OSError as error:
        if os.strerror(error.errno or 0) in map(os.strerror, (1, 13, 38)):
            raise
        return str(error)


class Inherited(NamedTuple):
    """Something created before sealing, and its descriptors that stay open."""

    value: Any
    kept: tuple[int, ...] = ()


def computing(_inherited: Any) -> None:
    """The twin of attacks without a harmless variant: the process still computes."""
    os.getpid()
    sum(range(10))


def unix_address(path: bytes) -> bytes:
    """A `sockaddr_un`."""
    return struct.pack("=H", socket.AF_UNIX) + path + b"\0"
