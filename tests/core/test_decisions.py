"""The pure functions of the other layers: limits, environment, cgroup, the filter's mark, values."""

import resource
from dataclasses import FrozenInstanceError

import pytest

from nyx_core.linux.cgroup import own_cgroup, settings
from nyx_core.linux.seccomp_mark import AXES, chunks_of, posture_from
from nyx_core.posix.rlimits import HEADROOM, UNLIMITED, RlimitUsage, clamp, memory_goal, processes_goal, rlimit_requests
from nyx_core.sandbox import Confinement, Limit, Network, ResourceLimits, RunAs, SandboxPolicy
from nyx_core.sandbox.confinement import confinement_for
from nyx_core.sandbox.environment import environment_for

MIB = 1024 * 1024
PID_MAX = 4_194_303
ASKED = Limit(64 * MIB, 128 * MIB)


def test_memory_is_literal_below_the_limit_and_added_above_it() -> None:
    """A process with headroom gets the limit itself, any other its use plus the limit."""
    assert memory_goal(ASKED, RlimitUsage(30 * MIB, 1, 1))[0] == ASKED
    assert memory_goal(ASKED, RlimitUsage(64 * MIB - HEADROOM, 1, 1))[0] == ASKED
    for used in (64 * MIB - HEADROOM + 1, 64 * MIB, 5000 * MIB):
        goal, note = memory_goal(ASKED, RlimitUsage(used, 1, 1))
        assert goal == Limit(used + 64 * MIB, used + 128 * MIB)
        assert "use + limit" in note


@pytest.mark.parametrize(
    ("usage", "goal"),
    [
        (RlimitUsage(0, 1, 1), Limit(10, 50)),
        (RlimitUsage(0, 4, 4), Limit(10, 50)),
        (RlimitUsage(0, 1, 30), Limit(40, 80)),
        (RlimitUsage(0, 20, 20), Limit(30, 70)),
        (RlimitUsage(0, None, None, "the kernel exempts root"), Limit(10, 50)),
    ],
)
def test_processes_are_literal_only_if_the_user_has_no_others(usage: RlimitUsage, goal: Limit) -> None:
    """A user with other tasks gets their count plus the limit."""
    assert processes_goal(Limit(10, 50), usage)[0] == goal


def test_what_cannot_be_measured_is_not_guessed() -> None:
    """If the use is unknown, no limit is set that might kill the process."""
    with pytest.raises(LookupError, match="memory"):
        rlimit_requests(ResourceLimits(), RlimitUsage(None, 1, 1))
    with pytest.raises(LookupError, match="processes"):
        rlimit_requests(ResourceLimits(memory=None), RlimitUsage(1, None, None))


@pytest.mark.parametrize(
    ("goal", "soft", "hard", "result"),
    [
        (Limit(64, 128), UNLIMITED, UNLIMITED, Limit(64, 128)),
        (Limit(64, 128), 1024, 4096, Limit(64, 128)),
        (Limit(64, 128), 100, 100, Limit(64, 100)),
        (Limit(64, 128), 20, 40, Limit(20, 40)),
        (Limit(64, 128), 20, 4096, Limit(20, 128)),
        (Limit(64, 128), 0, 0, Limit(0, 0)),
    ],
)
def test_no_limit_is_raised(goal: Limit, soft: int, hard: int, result: Limit) -> None:
    """A requested limit is clamped to the one in force."""
    assert clamp(goal, soft, hard) == result


def test_limits_left_alone() -> None:
    """`None` sets nothing."""
    nothing = ResourceLimits(memory=None, open_files=None, processes=None, core=None)
    assert rlimit_requests(nothing, RlimitUsage(None, None, None)) == ()
    one = rlimit_requests(ResourceLimits(memory=None, open_files=None, processes=None), RlimitUsage(None, None, None))
    assert [request.number for request in one] == [resource.RLIMIT_CORE]


def test_announcements_are_replaced() -> None:
    """The announcements in an environment are replaced by those of the confinement."""
    current = {"TZ": "UTC", "SECRET": "x", "NO_NETWORK": "0", "SANDBOX_POLICY": "strict"}
    assert environment_for(Confinement(environment=("TZ", "SANDBOX_POLICY")), current) == {
        "TZ": "UTC",
        "NO_SUBPROCESS": "1",
        "NO_NETWORK": "1",
        "NO_FILESYSTEM_WRITE": "1",
    }
    minimal = environment_for(confinement_for(SandboxPolicy.MINIMAL), current)
    assert minimal == {"TZ": "UTC", "SECRET": "x", "SANDBOX_POLICY": "minimal", "NO_SUBPROCESS": "1"}
    free = Confinement(environment=(), subprocess=True, writable=("/w",), network=Network.unrestricted())
    assert environment_for(free, current) == {}


@pytest.mark.parametrize(
    ("mounts", "membership", "found"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0", "0::/user.slice/a.scope", "/sys/fs/cgroup/user.slice/a.scope"),
        ("cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0", "4:memory:/x\n0::/", "/sys/fs/cgroup/unified"),
        ("cgroup /sys/fs/cgroup/memory cgroup rw 0 0", "0::/", None),
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0", "4:memory:/x", None),
        ("", "", None),
    ],
)
def test_the_own_cgroup_is_found(mounts: str, membership: str, found: str | None) -> None:
    """Only cgroup v2 counts, at any mount point."""
    assert own_cgroup(mounts, membership) == found


def test_the_settings_of_a_cgroup() -> None:
    """Memory and tasks are limited; a limit that isn't requested isn't written."""
    asked = {"memory.high": str(64 * MIB), "memory.max": str(128 * MIB), "pids.max": "50"}
    assert settings(ResourceLimits()) == asked
    assert settings(ResourceLimits(memory=None, processes=None)) == {}


@pytest.mark.parametrize("closed", [frozenset[str](), frozenset({"subprocess"}), frozenset(AXES)])
def test_the_mark_carries_axes_and_digest(closed: frozenset[str]) -> None:
    """`posture_from` reads back what the filter returns."""
    digest = Confinement().digest()
    chunks = chunks_of(closed, digest, PID_MAX)
    assert all(2048 <= chunk <= 4095 for chunk in chunks)
    posture = posture_from(chunks.__getitem__, PID_MAX)
    assert posture.closed == closed
    assert digest.startswith(posture.digest)
    assert len(posture.digest) == 11
    assert posture_from(chunks.__getitem__, 1) == (closed, "")  # a child inherits what is closed, and no more


@pytest.mark.parametrize("number", [0, 1, 22, 38, 2047])
def test_an_ordinary_errno_is_not_a_mark(number: int) -> None:
    """A kernel without the filter, or another filter, has no mark."""
    posture = posture_from(lambda _chunk: number, PID_MAX)
    assert (posture.closed, posture.digest) == (frozenset(), "")


def test_every_axis_is_in_the_mark() -> None:
    """Every axis has a bit in the mark."""
    assert Confinement(native_code=False).closed == frozenset(AXES)
    unrestricted = Confinement(
        readable=("/",), writable=("/",), network=Network.unrestricted(), subprocess=True, ipc=True
    )
    assert unrestricted.closed == frozenset()


def test_equal_confinements_have_equal_digests() -> None:
    """The digest depends on every field and on nothing else."""
    assert Confinement().digest() == Confinement().digest()
    one = Confinement(may_degrade=frozenset({"landlock", "cgroup", "seccomp"}))
    other = Confinement(may_degrade=frozenset({"seccomp", "landlock", "cgroup"}))
    assert one.digest() == other.digest()
    changed = {
        Confinement(umask=0o022).digest(),
        Confinement(readable=("/a",)).digest(),
        Confinement(limits=ResourceLimits(core=None)).digest(),
        Confinement(run_as=RunAs(1, 1)).digest(),
        Confinement().digest(),
    }
    assert len(changed) == 5


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Confinement(readable=("relative",)), "absolute"),
        (lambda: Confinement(writable=("/a\0b",)), "NUL"),
        (lambda: Confinement(umask=0o1000), "umask"),
        (lambda: Confinement(namespaces=frozenset({"uts"})), "unknown namespaces: uts"),
        (lambda: Confinement(namespaces=frozenset({"user"}), run_as=RunAs(1, 1)), "user namespace"),
        (lambda: ResourceLimits(memory=Limit(2, 1)), "limit memory 2/1"),
        (lambda: ResourceLimits(open_files=Limit(-1, 1)), "limit open_files"),
        (lambda: Network("some"), "want none, tcp or unrestricted"),
        (lambda: Network.tcp(connect=(0,)), "1 to 65535"),
        (lambda: Network.tcp(bind=(65536,)), "1 to 65535"),
        (lambda: Network("none", connect=(1,)), "ports are given"),
        (lambda: RunAs(0, 1), "above 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(build: object, text: str) -> None:
    """An invalid value raises when it's built, not when it's applied."""
    with pytest.raises(ValueError, match=text):
        build()  # type: ignore[operator]


def test_values_are_frozen() -> None:
    """A confinement can't be changed after it was checked."""
    with pytest.raises(FrozenInstanceError):
        Confinement().umask = 0  # type: ignore[misc]
