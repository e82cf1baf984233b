"""Every layer made to fail: a refusal that names the layer, or a report that says what stands in."""

from functools import cache
from typing import Any

import pytest

from tests.core.child import Outcome, identities, run_cases

EVERYONE = pytest.mark.parametrize("uid", identities())
REFUSED = ("EPERM", "EACCES")


@cache
def outcomes(uid: int) -> dict[str, Outcome]:
    return run_cases("tests.core.cases_failures", uid)


def value(uid: int, case: str) -> Any:
    outcome = outcomes(uid)[case]
    assert outcome.ended == "returned", outcome
    return outcome.value


@EVERYONE
@pytest.mark.parametrize(
    ("case", "layer", "text"),
    [
        ("landlock ENOSYS sealed", "landlock", "ENOSYS; nothing else can enforce: readable paths"),
        ("landlock EOPNOTSUPP sealed", "landlock", "needs the boot parameter lsm=landlock"),
        ("landlock EINVAL sealed", "landlock", "EINVAL"),
        ("landlock E2BIG sealed", "landlock", "E2BIG"),
        ("landlock EPERM sealed", "landlock", "needs an outer seccomp filter that allows"),
        ("landlock_add_rule", "landlock", "EINVAL"),
        ("landlock_restrict_self", "landlock", "E2BIG"),
        ("landlock_restrict_self strict", "landlock", "EPERM"),
        ("sixteen_domains", "landlock", "E2BIG"),
        ("no_new_privs", "no_new_privs", "EPERM"),
        ("seccomp", "seccomp", "EINVAL"),
        ("descriptors", "descriptors", "still open: "),
        ("environment", "environment", "EPERM"),
        ("capabilities", "capabilities", "EPERM"),
        ("limits", "limits", "EPERM"),
        ("privileges", "privileges", "EPERM"),
        ("process", "process", "EPERM"),
        ("missing_path", "landlock", "ENOENT: No such file or directory (/nowhere/to/be/found)"),
        ("missing_working_directory", "process", "(/nowhere/to/be/found)"),
        ("tcp_on_abi_3", "landlock", "ABI 3 cannot enforce: TCP ports"),
        ("signals_of_children_on_abi_5", "landlock", "ABI 5 cannot enforce: signals to other processes"),
        ("namespaces required", "namespaces", "unprivileged_userns_clone"),
    ],
)
def test_a_layer_that_fails_is_named(uid: int, case: str, layer: str, text: str) -> None:
    """The error names the layer and the reason, and its report holds what was reached before."""
    told = value(uid, case)
    assert told["layer"] == layer
    assert text in told["text"]
    assert told["states"][layer] in ("unavailable", "degraded")
    assert list(told["states"])[-1] == layer


@EVERYONE
@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP"])
def test_strict_holds_without_landlock(uid: int, error: str) -> None:
    """STRICT asks for nothing that the filter could not refuse alone, so it is applied."""
    assert value(uid, f"landlock {error} strict") == "applied"


@EVERYONE
@pytest.mark.parametrize("abi", range(1, 8))
def test_every_abi_keeps_writes_inside(uid: int, abi: int) -> None:
    """On each ABI a sealed process writes inside, neither writes nor truncates outside, and is told what is masked."""
    told = value(uid, f"abi {abi}")
    assert (told["state"], told["stand_in"]) == (("degraded", "seccomp") if abi < 3 else ("active", ""))
    assert told["inside"] == "succeeded"
    assert {told["outside"], told["truncate"], told["empty"]} <= set(REFUSED)
    assert told["move"] == ("EXDEV" if abi == 1 else "succeeded")
    for name, since in {"refer": 2, "truncate": 3, "tcp ports": 4, "ioctl on devices": 5, "scopes": 6}.items():
        assert (name in told["masked"]) == (abi < since)


@EVERYONE
def test_threads_that_exist_already_are_covered(uid: int) -> None:
    """The filter covers them: no process, and under STRICT no socket and no open for writing."""
    strict = {"fork": "EPERM", "socket": "EPERM", "write": "EPERM", "read": "succeeded"}
    assert value(uid, "thread strict") == ["applied", strict]
    status, minimal = value(uid, "thread minimal")
    assert (status, minimal["fork"], minimal["socket"]) == ("applied", "EPERM", "succeeded")


@EVERYONE
def test_threads_that_cannot_be_covered_are_refused(uid: int) -> None:
    """What only the calling thread would obey is not applied to a process that has others."""
    told, _ = value(uid, "thread sealed")
    assert told["layer"] in ("capabilities", "landlock")
    assert "confine before any thread starts" in told["text"]


@EVERYONE
def test_degrading_where_it_is_allowed(uid: int) -> None:
    """Without Landlock, and with that allowed, the report says so and nothing can be written at all."""
    state, write, tried = value(uid, "degraded_where_allowed")
    assert (state, write, tried) == ("unavailable", "EPERM", False)


@EVERYONE
def test_optional_layers_are_reported(uid: int) -> None:
    """Namespaces that are refused are reported, and the rest is applied."""
    told = value(uid, "namespaces optional")
    assert told["namespaces"] == ["unavailable", "", "unshare: EPERM"]
    assert told["seccomp"][0] == "active"


@EVERYONE
def test_a_cgroup_that_is_required(uid: int) -> None:
    """Where no cgroup is delegated the confinement that requires one is refused, with what would provide it."""
    told = value(uid, "cgroup required")
    if "layer" not in told:
        pytest.skip("a cgroup is delegated here")
    assert told["layer"] == "cgroup"
    assert "Delegate=yes" in told["text"]


@EVERYONE
def test_inside_an_outer_filter_and_an_outer_domain(uid: int) -> None:
    """Both walls hold: what either refuses is refused."""
    told = value(uid, "inside_an_outer_filter_and_domain")
    assert told == ["active", "succeeded", "EACCES", "EPERM", "EACCES"]


@EVERYONE
def test_a_layer_that_lies_is_found_out(uid: int) -> None:
    """The witness really tries: a layer that claims to work and does not is an error."""
    text = value(uid, "a_layer_that_lies")["text"]
    assert text.startswith("not refused after locking: ")
    assert "clone (subprocess): succeeded" in text
    assert "TCP socket (network): succeeded" in text


@EVERYONE
def test_the_environment_forbids_and_proves_nothing(uid: int) -> None:
    """Where the OS cannot tell what is in force, a forged policy is applied all the same, and never loosened."""
    text, repeated, fork = value(uid, "an_os_that_cannot_tell")
    assert text.startswith("asks for less than is in force")
    assert (repeated, fork) == (False, "EPERM")


@EVERYONE
def test_probing_changes_nothing(uid: int) -> None:
    """A survey leaves environment and descriptors alone, and covers every layer."""
    same, states = value(uid, "survey_changes_nothing")
    assert same
    assert len(states) == 11
    assert states["landlock"] == states["seccomp"] == "active"


@EVERYONE
def test_a_survey_names_what_would_help(uid: int) -> None:
    """A kernel that was booted without Landlock is told apart, with the boot parameter."""
    state, _, remedy = value(uid, "survey_without_landlock")
    assert state == "unavailable"
    assert "lsm=landlock" in remedy
