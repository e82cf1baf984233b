"""What a sealed process inherits, and the limits it meets, as root and as nobody."""

from functools import cache
from typing import Any

import pytest

from tests.core.child import Outcome, identities, run_cases

EVERYONE = pytest.mark.parametrize("uid", identities())


@cache
def outcomes(uid: int) -> dict[str, Outcome]:
    return run_cases("tests.core.cases_inherited", uid)


def value(uid: int, case: str) -> Any:
    outcome = outcomes(uid)[case]
    assert outcome.ended == "returned", outcome
    return outcome.value


@EVERYONE
def test_exactly_the_kept_descriptors_are_open(uid: int) -> None:
    """The report lists them, the kernel lists the same, and the others are closed."""
    assert value(uid, "descriptors") == [[0, 1, 2, 40], [0, 1, 2, 40], "EBADF"]


@EVERYONE
def test_exactly_the_granted_variables_are_set(uid: int) -> None:
    """Only granted names that were set stay, in Python, in C and in /proc."""
    own = {"NO_SUBPROCESS": "1", "NO_NETWORK": "1", "NO_FILESYSTEM_WRITE": "1"}
    assert value(uid, "environment") == [{"TZ": "UTC", **own}, None, "", "UTC"]


@EVERYONE
def test_the_first_environment_is_wiped(uid: int) -> None:
    """A secret that stood in the environment no longer stands in memory where the kernel had put it."""
    assert value(uid, "environment_memory") == [True, False]


@EVERYONE
def test_directory_umask_signals_and_session(uid: int) -> None:
    """The working directory and umask are the asked ones, no signal is blocked, and the session is its own."""
    told = value(uid, "place_and_masks")
    assert told == {"directory": True, "umask": "0o77", "blocked": 0, "leader": True}


@EVERYONE
def test_the_controlling_terminal_is_left(uid: int) -> None:
    """A forked process has no terminal afterwards; a session's leader is refused, since it cannot leave."""
    assert value(uid, "terminal") == ["succeeded ENXIO", "process"]


@EVERYONE
def test_a_kept_descriptor_gives_what_it_gave(uid: int) -> None:
    """It still reads; it neither writes nor truncates, and cannot be opened again for more."""
    assert value(uid, "inherited_descriptor_stays_usable_and_no_more") == ["text", "EBADF", "EINVAL", "EACCES"]


@EVERYONE
def test_address_space(uid: int) -> None:
    """An allocation beyond the limit is a MemoryError, one below it succeeds."""
    assert value(uid, "address_space") == ["succeeded", "MemoryError"]


@EVERYONE
def test_no_limit_is_raised_again(uid: int) -> None:
    """The hard limit holds for root too."""
    assert value(uid, "a_limit_cannot_be_raised") == "EPERM"


@EVERYONE
def test_open_files(uid: int) -> None:
    """The limit on descriptors is met: EMFILE, and none is numbered above it."""
    error, highest = value(uid, "open_files")
    assert error == "EMFILE"
    assert highest < 32


@EVERYONE
def test_processes(uid: int) -> None:
    """Threads are counted against the limit of an ordinary user; root is exempt, as its report says."""
    started, most = value(uid, "processes")
    assert started == most + 20 if uid == 0 else started < most


@EVERYONE
def test_cpu_seconds(uid: int) -> None:
    """A spin ends by the kernel's hand."""
    outcome = outcomes(uid)["cpu_seconds"]
    assert (outcome.ended, outcome.text) == ("killed", "SIGKILL")


@EVERYONE
def test_file_size(uid: int) -> None:
    """A file grows up to its limit and no further."""
    assert value(uid, "file_size") == [4096, "EFBIG"]


@EVERYONE
def test_core(uid: int) -> None:
    """No core is dumped."""
    assert value(uid, "core") == [0, 0]


@EVERYONE
def test_threads_that_start_later(uid: int) -> None:
    """They live under the same rules."""
    told = value(uid, "threads_that_start_later_are_sealed")
    assert told == {"fork": "EPERM", "socket": "EPERM", "read": "EACCES"}
