"""Every layer fails once: the error names the layer, or the report says what stands in for it."""

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
        ("missing_path", "landlock", "ENOENT: No such file or directory (/nonexistent/path)"),
        ("missing_working_directory", "process", "(/nonexistent/path)"),
        ("tcp_on_abi_3", "landlock", "ABI 3 cannot enforce: TCP ports"),
        ("signals_of_children_on_abi_5", "landlock", "ABI 5 cannot enforce: signals to other processes"),
        ("namespaces required", "namespaces", "unprivileged_userns_clone"),
    ],
)
def test_a_layer_that_fails_is_named(uid: int, case: str, layer: str, text: str) -> None:
    """The error names the layer and the reason, and its report has the layers applied before."""
    error = value(uid, case)
    assert error["layer"] == layer
    assert text in error["text"]
    assert error["states"][layer] in ("unavailable", "degraded")
    assert list(error["states"])[-1] == layer


@EVERYONE
@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP"])
def test_strict_holds_without_landlock(uid: int, error: str) -> None:
    """The filter alone can enforce STRICT, so it's applied."""
    assert value(uid, f"landlock {error} strict") == "applied"


@EVERYONE
@pytest.mark.parametrize("abi", range(1, 8))
def test_every_abi_keeps_writes_inside(uid: int, abi: int) -> None:
    """On each ABI a sealed process can't write or truncate outside, and the report says what is masked."""
    error = value(uid, f"abi {abi}")
    assert (error["state"], error["stand_in"]) == (("degraded", "seccomp") if abi < 3 else ("active", ""))
    assert error["inside"] == "succeeded"
    assert {error["outside"], error["truncate"], error["empty"]} <= set(REFUSED)
    assert error["move"] == ("EXDEV" if abi == 1 else "succeeded")
    for name, since in {"refer": 2, "truncate": 3, "tcp ports": 4, "ioctl on devices": 5, "scopes": 6}.items():
        assert (name in error["masked"]) == (abi < since)


@EVERYONE
def test_threads_that_exist_already_are_covered(uid: int) -> None:
    """The filter covers them: no process, and under STRICT no socket and no open for writing."""
    strict = {"fork": "EPERM", "socket": "EPERM", "write": "EPERM", "read": "succeeded"}
    assert value(uid, "thread strict") == ["applied", strict]
    status, minimal = value(uid, "thread minimal")
    assert (status, minimal["fork"], minimal["socket"]) == ("applied", "EPERM", "succeeded")


@EVERYONE
def test_threads_that_cannot_be_covered_are_refused(uid: int) -> None:
    """A layer that restricts only the calling thread isn't applied to a process with others."""
    error, _ = value(uid, "thread sealed")
    assert error["layer"] in ("capabilities", "landlock")
    assert "confine before any thread starts" in error["text"]


@EVERYONE
def test_degrading_where_it_is_allowed(uid: int) -> None:
    """Without Landlock, if that is allowed, the report says so and nothing can be written."""
    state, write, tried = value(uid, "degraded_where_allowed")
    assert (state, write, tried) == ("unavailable", "EPERM", False)


@EVERYONE
def test_optional_layers_are_reported(uid: int) -> None:
    """Refused namespaces are reported, and the other layers are applied."""
    error = value(uid, "namespaces optional")
    assert error["namespaces"] == ["unavailable", "", "unshare: EPERM"]
    assert error["seccomp"][0] == "active"


@EVERYONE
def test_a_cgroup_that_is_required(uid: int) -> None:
    """If a required cgroup isn't delegated, confining fails and says what would provide it."""
    error = value(uid, "cgroup required")
    if "layer" not in error:
        pytest.skip("a cgroup is delegated here")
    assert error["layer"] == "cgroup"
    assert "Delegate=yes" in error["text"]


@EVERYONE
def test_inside_an_outer_filter_and_an_outer_domain(uid: int) -> None:
    """What either the outer or the inner confinement refuses is refused."""
    error = value(uid, "inside_an_outer_filter_and_domain")
    assert error == ["active", "succeeded", "EACCES", "EPERM", "EACCES"]


@EVERYONE
def test_a_layer_that_does_nothing_is_detected(uid: int) -> None:
    """The witness attempts the operations, so a layer that only claims to work is an error."""
    text = value(uid, "a_layer_that_does_nothing")["text"]
    assert text.startswith("not refused after locking: ")
    assert "clone (subprocess): succeeded" in text
    assert "TCP socket (network): succeeded" in text


@EVERYONE
def test_the_environment_forbids_and_proves_nothing(uid: int) -> None:
    """If the OS can't tell what is in force, a forged policy is applied anyway, and never loosened."""
    text, repeated, fork = value(uid, "an_os_that_cannot_tell")
    assert text.startswith("asks for less than is in force")
    assert (repeated, fork) == (False, "EPERM")


@EVERYONE
def test_probing_changes_nothing(uid: int) -> None:
    """A survey changes neither environment nor descriptors, and covers every layer."""
    same, states = value(uid, "survey_changes_nothing")
    assert same
    assert len(states) == 11
    assert states["landlock"] == states["seccomp"] == "active"


@EVERYONE
def test_a_survey_names_what_would_help(uid: int) -> None:
    """A kernel that was booted without Landlock is recognised, and the report names the boot parameter."""
    state, _, remedy = value(uid, "survey_without_landlock")
    assert state == "unavailable"
    assert "lsm=landlock" in remedy
