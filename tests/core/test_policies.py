"""`apply_policy` and `confine` on real processes, as root and as an ordinary user."""

from functools import cache
from typing import Any

import pytest

from tests.core.child import Outcome, identities, run_cases

MIB = 1024 * 1024
EVERYONE = pytest.mark.parametrize("uid", identities())
REFUSED = ("PermissionError 1", "PermissionError 13")
LESS = "asks for less than is in force: ipc, network, udp, writes closed already"


@cache
def outcomes(uid: int) -> dict[str, Outcome]:
    return run_cases("tests.core.cases_policies", uid)


def value(uid: int, case: str) -> Any:
    outcome = outcomes(uid)[case]
    assert outcome.ended == "returned", outcome
    return outcome.value


@EVERYONE
def test_minimal_sets_the_guides_limits(uid: int) -> None:
    """Soft and hard limits read back as in the guide; the limit on processes counts what the user has."""
    limits = value(uid, "minimal_limits")
    assert limits["memory"] == [64 * MIB, 128 * MIB]
    assert limits["open_files"] == [64, 128]
    assert limits["core"] == [0, 0]
    soft, hard = limits["processes"]
    assert soft >= 10
    assert hard - soft == 40
    assert uid != 0 or soft == 10


@EVERYONE
def test_minimal_leaves_files_network_path_memory_and_threads(uid: int) -> None:
    """File I/O, a connection, PATH, an allocation and a thread work under MINIMAL."""
    assert value(uid, "minimal_leaves_the_ordinary") == ["applied", "/usr/bin:/bin", "0o640", [1], 4 * MIB]


@EVERYONE
def test_new_files_are_private(uid: int) -> None:
    """New files and directories have no bit for group or others."""
    assert value(uid, "new_files_are_private") == [0, 0]


@EVERYONE
def test_the_environment_names_the_policy(uid: int) -> None:
    """The environment names the policy and what it closes, and keeps the rest."""
    expected = {"SANDBOX_POLICY": "minimal", "NO_SUBPROCESS": "1", "NO_NETWORK": None, "SECRET": "hunter2"}
    assert value(uid, "minimal_environment") == expected
    strict = {"SANDBOX_POLICY": "strict", "NO_SUBPROCESS": "1", "NO_NETWORK": "1", "NO_FILESYSTEM_WRITE": "1"}
    assert value(uid, "strict_environment") == strict


@EVERYONE
def test_minimal_refuses_new_processes(uid: int) -> None:
    """NO_SUBPROCESS is true: fork, subprocess and exec are refused."""
    assert value(uid, "minimal_refuses_processes") == ["PermissionError 1"] * 3


@EVERYONE
def test_strict_refuses_sockets_and_changes(uid: int) -> None:
    """NO_NETWORK and NO_FILESYSTEM_WRITE are true."""
    answers = value(uid, "strict_refuses")
    assert answers.pop("temporary") == "FileNotFoundError 2"  # tempfile tried every directory
    assert set(answers.values()) <= set(REFUSED), answers


@EVERYONE
def test_strict_leaves_reading(uid: int) -> None:
    """Under STRICT files are read, /dev/null is written, and asyncio's executor runs."""
    assert value(uid, "strict_leaves_reading") == ["text", True, 7]


@EVERYONE
def test_repeating_is_harmless(uid: int) -> None:
    """Repeated calls return the same status, and the report says that nothing was applied again."""
    assert value(uid, "repeated") == ["applied"] * 4
    assert value(uid, "repeated_confinement_says_so") == [False, True]


@EVERYONE
def test_strict_after_minimal_tightens(uid: int) -> None:
    """The network works under MINIMAL, and no longer after STRICT."""
    assert value(uid, "strict_after_minimal") == ["succeeded", "PermissionError 1"]


@EVERYONE
def test_minimal_after_strict_is_an_error(uid: int) -> None:
    """Requesting less raises with a report, and changes nothing."""
    assert value(uid, "minimal_after_strict") == [None, LESS, True, "strict", "PermissionError 1"]


@EVERYONE
def test_the_kernel_says_what_is_in_force(uid: int) -> None:
    """An inherited SANDBOX_POLICY proves nothing: the policy is applied anyway."""
    assert value(uid, "a_forged_environment_changes_nothing") == ["applied", "PermissionError 1", "minimal"]


@EVERYONE
def test_cooperative_mode_announces_and_limits(uid: int) -> None:
    """It refuses nothing and never loosens, and a real confinement can follow."""
    assert value(uid, "cooperative_only") == ["applied", "applied", LESS, 0, "1", [64, 128]]
    assert value(uid, "cooperative_then_real") == ["applied", "PermissionError 1", LESS]


@EVERYONE
def test_a_process_above_the_memory_limit_survives(uid: int) -> None:
    """It gets its use plus the limit, and the report says so."""
    fits, soft, note = value(uid, "a_big_process_survives")
    assert fits
    assert soft
    assert note.endswith("bytes were mapped already: use + limit")


@EVERYONE
def test_a_lower_hard_limit_clamps_and_is_reported(uid: int) -> None:
    """A limit that is already lower doesn't prevent setting the others."""
    note = "clamped to the limits in force, 40/40"
    assert value(uid, "a_lower_hard_limit_clamps") == [64, 128, 40, 40, note, ["open_files"], [0, 0]]


@EVERYONE
def test_the_limit_on_processes_says_what_it_counts(uid: int) -> None:
    """The report says whether the limit is literal, and that root is exempt."""
    note = value(uid, "processes_note")
    assert "kernel exempts root" in note if uid == 0 else "count + limit" in note


@EVERYONE
def test_the_report_shows_every_layer_with_its_reason(uid: int) -> None:
    """The report of `confine(Confinement())` has each layer, and every attempt was refused."""
    report = value(uid, "confinement_json")
    states = {layer["name"]: layer["state"] for layer in report["layers"]}
    assert list(states) == [
        "process", "descriptors", "environment", "cgroup", "namespaces", "privileges",
        "capabilities", "limits", "no_new_privs", "landlock", "seccomp",
    ]  # fmt: skip
    assert {name for name, state in states.items() if state != "active"} == {"cgroup", "namespaces", "privileges"}
    assert all(layer["reason"] for layer in report["layers"])
    axes = {result["axis"] for result in report["witness"] if result["refused"]}
    assert axes == {"kernel", "subprocess", "network", "writes", "reads", "ipc", "capabilities", "limits"}
    assert all(result["refused"] for result in report["witness"])
    assert report["descriptors"] == [0, 1, 2]
    assert report["environment"] == ["NO_FILESYSTEM_WRITE", "NO_NETWORK", "NO_SUBPROCESS"]
    assert len(report["policy_hash"]) == 64


@EVERYONE
def test_python_works_after_locking(uid: int) -> None:
    """Temporary files, eight threads, a lookup through nss, a TLS context and an import work."""
    assert value(uid, "python_works_afterwards") == [49, True, "CERT_REQUIRED", "colorsys"]


@EVERYONE
def test_tcp_ports(uid: int) -> None:
    """The granted port connects; another port, UDP, bind, listen and TCP Fast Open are refused."""
    answers = value(uid, "tcp_ports")
    assert set(answers.values()) <= set(REFUSED), answers


@EVERYONE
def test_subprocesses_run_under_the_same_rules(uid: int) -> None:
    """Granted subprocesses run, but can't write, read or signal outside."""
    assert value(uid, "subprocesses_inherit") == ["ran\n", True, "PermissionError 1"]


@EVERYONE
def test_a_child_is_confined_anew(uid: int) -> None:
    """Inheriting a filter doesn't mean that a child's descriptors are closed, so it isn't a repetition."""
    assert value(uid, "a_child_is_confined_anew") == "False (0, 1, 2)"


@EVERYONE
def test_strict_hides_other_processes(uid: int) -> None:
    """STRICT allows reading, but not the environment of another process."""
    assert value(uid, "strict_hides_the_parents_environment") == "PermissionError 13"


@EVERYONE
def test_a_second_confinement_tightens(uid: int) -> None:
    """With /proc granted, native code can be frozen later; the tighter confinement then ends reading /proc."""
    assert value(uid, "tightening_with_proc") == [False, "PermissionError 1", "PermissionError 13"]


@EVERYONE
def test_a_second_confinement_without_proc_is_refused(uid: int) -> None:
    """If the use can't be measured any more, the second confinement fails and names the layer."""
    layer, text, has_report = value(uid, "tightening_without_proc")
    assert layer == "descriptors"
    assert "EACCES" in text
    assert has_report


@EVERYONE
def test_namespaces_can_be_requested(uid: int) -> None:
    """User, mount and network namespaces are entered if the kernel lets users create them."""
    state, reason = value(uid, "namespaces")
    if state == "refused":
        pytest.skip("this host lets users make no namespaces")
    assert (state, reason) == ("active", "own mount, net, user")


@EVERYONE
def test_becoming_another_user(uid: int) -> None:
    """Root becomes the given user irreversibly; for other users the error names the layer."""
    outcome = outcomes(uid)["become_another_user"]
    if uid != 0:
        assert outcome.text.startswith("SandboxError: layer privileges is unavailable: EPERM")
        return
    ids, groups, extra, again, note = outcome.value
    assert (ids, groups, extra) == ([12345] * 3, [12346] * 3, [])
    assert again == "PermissionError 1"
    assert note == "literal: the user runs nothing else"
