"""The effects of `apply_policy` and `confine` on a process: one case per promise, each in its own process."""

import asyncio
import contextlib
import mmap
import os
import resource
import socket
import ssl
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nyx_core.sandbox import (
    Confinement,
    Limit,
    Network,
    ResourceLimits,
    SandboxError,
    SandboxPolicy,
    SandboxReport,
    apply_policy,
    confine,
)

MIB = 1024 * 1024
LARGE_MEMORY = ResourceLimits(memory=Limit(512 * MIB, 512 * MIB))
MINIMAL, STRICT = SandboxPolicy.MINIMAL, SandboxPolicy.STRICT
LIMITS = {
    "memory": resource.RLIMIT_AS,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
}


def in_force() -> dict[str, list[int]]:
    return {name: list(resource.getrlimit(number)) for name, number in LIMITS.items()}


def refused(act: Any) -> str:
    """The errno with which `act` is refused, or "succeeded"."""
    try:
        act()
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"
    return "succeeded"


def error_of(act: Any) -> list[Any]:
    """Layer and text of the `SandboxError` that `act` raises, and whether it has a report."""
    try:
        act()
    except SandboxError as error:
        return [error.layer, str(error), isinstance(error.report, SandboxReport)]
    return ["no error"]


def minimal_limits() -> Any:
    apply_policy(MINIMAL)
    return in_force()


def minimal_leaves_the_ordinary() -> Any:
    status = apply_policy(MINIMAL)
    with open("new", "w") as file:
        file.write("text")
    os.chmod("new", 0o640)
    os.rename("new", "moved")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    ran: list[int] = []
    thread = threading.Thread(target=lambda: ran.append(1))
    thread.start()
    thread.join()
    block = bytes(4 * MIB)
    return [status.value, os.environ["PATH"], oct(os.stat("moved").st_mode & 0o777), ran, len(block)]


def new_files_are_private() -> Any:
    apply_policy(MINIMAL)
    with open("private", "w"):
        pass
    os.mkdir("closed")
    return [os.stat("private").st_mode & 0o077, os.stat("closed").st_mode & 0o077]


def minimal_environment() -> Any:
    apply_policy(MINIMAL)
    return {name: os.environ.get(name) for name in ("SANDBOX_POLICY", "NO_SUBPROCESS", "NO_NETWORK", "SECRET")}


def strict_environment() -> Any:
    apply_policy(STRICT)
    names = ("SANDBOX_POLICY", "NO_SUBPROCESS", "NO_NETWORK", "NO_FILESYSTEM_WRITE")
    return {name: os.environ.get(name) for name in names}


def minimal_refuses_processes() -> Any:
    apply_policy(MINIMAL)
    return [
        refused(os.fork),
        refused(lambda: subprocess.run(["true"], check=False)),
        refused(lambda: os.execv("/bin/true", ["x"])),
    ]


def strict_refuses() -> Any:
    with open("there", "w") as file:
        file.write("text")
    apply_policy(STRICT)
    return {
        "process": refused(os.fork),
        "socket": refused(socket.socket),
        "create": refused(lambda: open("new", "w")),
        "append": refused(lambda: open("there", "a")),
        "remove": refused(lambda: os.unlink("there")),
        "rename": refused(lambda: os.rename("there", "moved")),
        "mode": refused(lambda: os.chmod("there", 0o600)),
        "temporary": refused(tempfile.TemporaryFile),
    }


def strict_leaves_reading() -> Any:
    with open("there", "w") as file:
        file.write("text")
    apply_policy(STRICT)
    with open("there") as file, open(os.devnull, "w") as nothing:
        nothing.write("x")
        text = file.read()
    return [text, bool(os.listdir(".")), asyncio.run(asyncio.to_thread(lambda: 7))]


def repeated() -> Any:
    return [apply_policy(policy).value for policy in (MINIMAL, MINIMAL, STRICT, STRICT)]


def repeated_confinement_says_so() -> Any:
    wanted = Confinement()
    return [confine(wanted).repeated, confine(wanted).repeated]


def strict_after_minimal() -> Any:
    apply_policy(MINIMAL)
    before = refused(lambda: socket.socket().close())
    apply_policy(STRICT)
    return [before, refused(socket.socket)]


def minimal_after_strict() -> Any:
    apply_policy(STRICT)
    return [*error_of(lambda: apply_policy(MINIMAL)), os.environ["SANDBOX_POLICY"], refused(socket.socket)]


def a_forged_environment_changes_nothing() -> Any:
    os.environ["SANDBOX_POLICY"] = "strict"
    return [apply_policy(MINIMAL).value, refused(os.fork), os.environ["SANDBOX_POLICY"]]


def cooperative_only() -> Any:
    status = apply_policy(STRICT, cooperative_only=True)
    again = apply_policy(STRICT, cooperative_only=True)
    less = error_of(lambda: apply_policy(MINIMAL, cooperative_only=True))
    child = subprocess.run(["/bin/true"], check=False).returncode
    return [status.value, again.value, less[1], child, os.environ["NO_NETWORK"], in_force()["open_files"]]


def cooperative_then_real() -> Any:
    apply_policy(STRICT, cooperative_only=True)
    return [
        apply_policy(STRICT).value,
        refused(os.fork),
        error_of(lambda: apply_policy(MINIMAL, cooperative_only=True))[1],
    ]


def a_big_process_survives() -> Any:
    allocated = bytearray(300 * MIB)
    report = confine(Confinement(limits=ResourceLimits()))
    more = bytearray(20 * MIB)
    limit = next(limit for limit in report.limits if limit.name == "memory")
    return [len(allocated) + len(more) == 320 * MIB, limit.soft > 364 * MIB, limit.note]


def a_lower_hard_limit_clamps() -> Any:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    report = confine(Confinement())
    limit = next(limit for limit in report.limits if limit.name == "open_files")
    others = [limit.name for limit in report.limits if limit.note.startswith("clamped")]
    return [limit.asked_soft, limit.asked_hard, limit.soft, limit.hard, limit.note, others, in_force()["core"]]


def processes_note() -> Any:
    return next(limit.note for limit in confine(Confinement()).limits if limit.name == "processes")


def confinement_json() -> Any:
    return confine(Confinement()).to_dict()


def python_works_afterwards() -> Any:
    """After locking: tempfile, threads, a loop with its executor, TLS contexts, name resolution."""
    scratch = os.path.abspath("scratch")
    os.mkdir(scratch)
    big = ResourceLimits(memory=Limit(1024 * MIB, 1024 * MIB))
    confine(
        Confinement(limits=big, writable=(scratch,), network=Network.unrestricted(), environment=("PATH", "TMPDIR"))
    )
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None
    with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryDirectory() as directory:
        file.write(b"x")
        open(f"{directory}/y", "w").close()
    with ThreadPoolExecutor(8) as pool:
        squares = list(pool.map(lambda n: n * n, range(8)))

    async def names() -> int:
        return len(await asyncio.get_running_loop().getaddrinfo("localhost", 80))

    context = ssl.create_default_context()
    import colorsys

    return [squares[-1], asyncio.run(names()) > 0, context.verify_mode.name, colorsys.__name__]


def tcp_ports() -> Any:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    allowed, other = (server.getsockname() for server in servers)
    kept = (0, 1, 2, *(server.fileno() for server in servers))
    confine(Confinement(network=Network.tcp(connect=(allowed[1],)), keep_descriptors=kept))
    socket.create_connection(allowed).close()
    return {
        "other port": refused(lambda: socket.create_connection(other)),
        "udp": refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "bind": refused(lambda: socket.socket().bind(("127.0.0.1", 0))),
        "listen": refused(lambda: socket.socket().listen()),
        "fast open": refused(lambda: socket.socket().sendto(b"x", 0x2000_0000, other)),
    }


def subprocesses_inherit() -> Any:
    """Granted subprocesses run under the same rules."""
    wanted = Confinement(subprocess=True, executable=("/",), readable=("/usr", "/lib", "/etc"), environment=("PATH",))
    confine(wanted)
    done = subprocess.run(
        ["/bin/sh", "-c", "echo ran; echo no > x; cat /proc/1/environ"], capture_output=True, text=True, check=False
    )
    return [done.stdout, done.returncode != 0, refused(lambda: os.kill(os.getppid(), 0))]


def a_child_is_confined_anew() -> Any:
    """A child inherits the filter. Confining it still closes its own descriptors."""
    wanted = Confinement(subprocess=True, readable=("/proc", "/"))
    confine(wanted)
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(out, 1)
        report = confine(wanted)
        os.write(1, f"{report.repeated} {report.descriptors}".encode())
        os._exit(0)
    os.close(out)
    os.waitpid(child, 0)
    return os.read(back, 100).decode()


def tightening_without_proc() -> Any:
    confine(Confinement())
    return error_of(lambda: confine(Confinement(native_code=False)))


def tightening_with_proc() -> Any:
    confine(Confinement(readable=("/proc",), limits=LARGE_MEMORY))
    report = confine(Confinement(limits=LARGE_MEMORY, native_code=False))
    return [
        report.repeated,
        refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_EXEC)),
        refused(lambda: os.listdir("/proc")),
    ]


def strict_hides_the_parents_environment() -> Any:
    apply_policy(STRICT)
    return refused(lambda: open(f"/proc/{os.getppid()}/environ").close())


def namespaces() -> Any:
    wanted = Confinement(namespaces=frozenset({"user", "net", "mount"}), may_degrade=frozenset())
    with contextlib.suppress(SandboxError):
        report = confine(wanted)
        layer = report.layer("namespaces")
        return [layer.state.value if layer else "", layer.reason if layer else ""]
    return ["refused", ""]


def become_another_user() -> Any:
    from nyx_core.sandbox import RunAs

    report = confine(Confinement(run_as=RunAs(12345, 12346), may_degrade=frozenset()))
    processes = next(limit.note for limit in report.limits if limit.name == "processes")
    return [os.getresuid(), os.getresgid(), os.getgroups(), refused(lambda: os.setuid(0)), processes]


CASES = {
    function.__name__: function
    for function in (
        minimal_limits,
        minimal_leaves_the_ordinary,
        new_files_are_private,
        minimal_environment,
        strict_environment,
        minimal_refuses_processes,
        strict_refuses,
        strict_leaves_reading,
        repeated,
        repeated_confinement_says_so,
        strict_after_minimal,
        minimal_after_strict,
        a_forged_environment_changes_nothing,
        cooperative_only,
        cooperative_then_real,
        a_big_process_survives,
        a_lower_hard_limit_clamps,
        processes_note,
        confinement_json,
        python_works_afterwards,
        tcp_ports,
        subprocesses_inherit,
        a_child_is_confined_anew,
        strict_hides_the_parents_environment,
        tightening_without_proc,
        tightening_with_proc,
        namespaces,
        become_another_user,
    )
}
