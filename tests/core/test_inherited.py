"""What a sealed process inherits, and its limits, as root and as an ordinary user."""

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
    """The report and the kernel list the kept descriptors; the others are closed."""
    assert value(uid, "descriptors") == [[0, 1, 2, 40], [0, 1, 2, 40], "EBADF"]


@EVERYONE
def test_exactly_the_granted_variables_are_set(uid: int) -> None:
    """Only granted variables stay, in Python, in C and in /proc."""
    own = {"NO_SUBPROCESS": "1", "NO_NETWORK": "1", "NO_FILESYSTEM_WRITE": "1"}
    assert value(uid, "environment") == [{"TZ": "UTC", **own}, None, "", "UTC"]


@EVERYONE
def test_the_first_environment_is_wiped(uid: int) -> None:
    """A secret in the environment is no longer in the memory in which the kernel passed it."""
    assert value(uid, "environment_memory") == [True, False]


@EVERYONE
def test_directory_umask_signals_and_session(uid: int) -> None:
    """Working directory and umask are as requested, no signal is blocked, and the session is new."""
    found = value(uid, "directory_and_masks")
    assert found == {"directory": True, "umask": "0o77", "blocked": 0, "leader": True}


@EVERYONE
def test_the_controlling_terminal_is_left(uid: int) -> None:
    """A forked process has no terminal afterwards. A session leader can't leave it and is refused."""
    assert value(uid, "terminal") == ["succeeded ENXIO", "process"]


@EVERYONE
def test_a_kept_descriptor_has_its_old_access(uid: int) -> None:
    """It can still be read, but not written, truncated, or reopened for more."""
    assert value(uid, "inherited_descriptor_stays_usable_and_no_more") == ["text", "EBADF", "EINVAL", "EACCES"]


@EVERYONE
def test_address_space(uid: int) -> None:
    """An allocation beyond the limit raises MemoryError, one below it succeeds."""
    assert value(uid, "address_space") == ["succeeded", "MemoryError"]


@EVERYONE
def test_no_limit_is_raised_again(uid: int) -> None:
    """The hard limit applies to root too."""
    assert value(uid, "a_limit_cannot_be_raised") == "EPERM"


@EVERYONE
def test_open_files(uid: int) -> None:
    """Beyond the limit on descriptors opening fails with EMFILE, and no number is above it."""
    error, highest = value(uid, "open_files")
    assert error == "EMFILE"
    assert highest < 32


@EVERYONE
def test_processes(uid: int) -> None:
    """An ordinary user's threads count against the limit; root is exempt, as its report says."""
    started, most = value(uid, "processes")
    assert started == most + 20 if uid == 0 else started < most


@EVERYONE
def test_cpu_seconds(uid: int) -> None:
    """The kernel kills a process that exceeds its processor time."""
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
    """Threads that start later are restricted too."""
    found = value(uid, "threads_that_start_later_are_sealed")
    assert found == {"fork": "EPERM", "socket": "EPERM", "read": "EACCES"}
