"""Attacks with what the process itself has: it inherited nothing, and can exhaust only its own resources."""

import _thread
import os
import resource
import signal

from table import attack

_OWN = 4  # the standard streams and the channel


async def itself(_plugin):
    """The process computes, and knows its own limits."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] > _OWN


class Found(Exception):
    """Something that an attacker looked for doesn't exist."""


def _links():
    found = {}
    for number in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}").partition(":")[0]
        except OSError:
            continue
    return found


@attack("Inherited", "descriptors", twin=itself, answers=("Found",))
async def use_an_inherited_descriptor(_plugin):
    # Beside its own four, the event loop's: an epoll, and a pair to wake it.
    expected = {"/dev/null", "pipe", "socket", "anon_inode"}
    found = _links()
    if set(found.values()) <= expected and len(found) <= _OWN + 3:
        raise Found
    return found


@attack("Inherited", "environment", twin=itself, answers=("Found",))
async def find_a_secret_in_the_environment(_plugin):
    found = {name: value for name, value in os.environ.items() if "SECRET" in name or value == "hunter2"}
    if not found and os.environ["NYX_GRANTED"] == "yes":
        raise Found
    return found


@attack("Inherited", "environment", twin=itself, answers=("EACCES",))
async def read_the_first_environment(_plugin):
    os.close(os.open("/proc/self/environ", os.O_RDONLY))


@attack("Inherited", "seccomp", twin=itself, answers=("Found",))
async def stand_in_the_hosts_directory(_plugin):
    if os.getcwd() == "/":
        raise Found
    return os.getcwd()


@attack("Inherited", "umask", twin=itself, answers=("Found",))
async def make_files_for_everybody(_plugin):
    mask = os.umask(0o077)
    if mask == 0o077:
        raise Found
    return oct(mask)


@attack("Inherited", "session", twin=itself, answers=("ENXIO", "EACCES", "ENOENT"))
async def use_the_terminal(_plugin):
    os.open("/dev/tty", os.O_RDWR)


@attack("Inherited", "session", twin=itself, answers=("Found",))
async def stand_in_the_hosts_session(_plugin):
    try:
        os.tcgetpgrp(0)
    except OSError:
        if os.getsid(0) == os.getpid():
            raise Found from None
    return os.getsid(0)


@attack("Inherited", "signals", twin=itself, answers=("Found",))
async def find_signals_blocked(_plugin):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if not blocked:
        raise Found
    return blocked


@attack("Limits", "limits", twin=itself, answers=("EMFILE",))
async def open_without_end(_plugin):
    kept = []
    try:
        while True:
            kept.append(os.dup(0))
    finally:
        for descriptor in kept:
            os.close(descriptor)


@attack("Limits", "limits", twin=itself, answers=("MemoryError",))
async def allocate_without_end(_plugin):
    kept = []
    while True:
        kept.append(bytearray(2**24))


def _wait(lock):
    with lock:
        pass


@attack("Limits", "limits", twin=itself, answers=("RuntimeError",))
async def start_threads_without_end(_plugin):
    over = _thread.allocate_lock()
    with over:
        for _ in range(100_000):
            _thread.start_new_thread(_wait, (over,))


@attack("Limits", "limits", twin=itself, answers=("EPERM", "ValueError"))
async def raise_a_limit(_plugin):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))


@attack("Limits", "limits", twin=itself, answers=("Found",))
async def leave_a_core(_plugin):
    if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0):
        raise Found
    return resource.getrlimit(resource.RLIMIT_CORE)


@attack("Limits", "guard", twin=itself, answers=("HttpLimitExceeded",))
async def read_a_reply_that_never_ends(plugin):
    await plugin.http.get("http://granted.example/too-long")


@attack("Limits", "limits", twin=itself)
async def take_a_descriptor_without_room(plugin):
    while True:
        try:
            os.dup(0)
        except OSError:
            break
    async with plugin.files.open("mine", "rb") as file:
        return file.fileno()
