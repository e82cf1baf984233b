"""The layers that macOS and OpenBSD share, on the POSIX system that the tests run on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import Any

import psutil
import pytest

from nyx_core.posix.descriptors import Descriptors, below_the_hard_limit
from nyx_core.posix.process import Privileges, python_paths
from nyx_core.posix.rlimits import psutil_usage
from nyx_core.posix.witness import INVISIBLE, REFUSALS, witness
from nyx_core.sandbox.confinement import Confinement, SandboxPolicy, confinement_for
from nyx_core.sandbox.environment import announced_confinement
from nyx_core.sandbox.report import LayerReport, LayerState

if sys.platform == "win32":
    pytest.skip("these layers are those of POSIX systems", allow_module_level=True)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
LOCKED = (LayerReport("pledge", LayerState.ACTIVE, "pledged"),)


def in_a_process(code: str) -> Any:
    """Run `code` in a new interpreter and read the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_witness_succeeds_if_nothing_is_locked() -> None:
    """Unconfined, every attempt succeeds and is reported as not refused."""
    code = """if True:
        import json
        from nyx_core.posix.witness import witness
        from nyx_core.sandbox.confinement import Confinement
        from nyx_core.sandbox.report import LayerReport, LayerState
        locked = (LayerReport("pledge", LayerState.ACTIVE, "active"),)
        seen = witness("pledge", Confinement(native_code=False), locked)
        print(json.dumps([[result.axis, result.refused, result.answer] for result in seen]))
    """
    seen = in_a_process(code)
    axes = {"subprocess", "network", "udp", "reads", "native_code", "ipc"}
    if os.access("/tmp", os.W_OK | os.X_OK):  # where ordinary permissions refuse already, nothing is tried
        axes.add("writes")
    assert {axis for axis, _, _ in seen} == axes
    assert {(refused, answer) for _, refused, answer in seen} == {(False, "succeeded")}


def test_the_witness_leaves_nothing_behind() -> None:
    """The witness removes its file and waits for its child."""
    before = {name for name in os.listdir("/tmp") if name.startswith(".nyx-witness-")}
    children = set(psutil.Process().children())
    witness("pledge", Confinement(), LOCKED)
    assert {name for name in os.listdir("/tmp") if name.startswith(".nyx-witness-")} == before
    assert set(psutil.Process().children()) == children


@pytest.mark.parametrize("state", [LayerState.UNAVAILABLE, LayerState.DEGRADED, LayerState.DISABLED])
def test_the_witness_attempts_nothing_if_the_lock_is_not_in_force(state: LayerState) -> None:
    """Nothing is attempted if the layer isn't in force, which its report says already."""
    assert witness("pledge", Confinement(), (LayerReport("pledge", state, ""),)) == ()


def test_what_is_granted_is_not_tried() -> None:
    """MINIMAL closes one axis, so there is one attempt."""
    seen = witness("pledge", confinement_for(SandboxPolicy.MINIMAL), LOCKED)
    assert [result.axis for result in seen] == ["subprocess"]


def test_only_an_invisible_path_is_a_further_refusal() -> None:
    """ENOENT refuses a path, because unveil hides it. Unknown errnos never count as a refusal."""
    assert errno.ENOENT in INVISIBLE - REFUSALS
    assert not {errno.EINVAL, errno.ECONNREFUSED, errno.EADDRINUSE} & INVISIBLE


def test_descriptors_are_closed_but_for_those_that_stay() -> None:
    """Exactly the kept descriptors are open afterwards, and the report lists them."""
    code = """if True:
        import json, os
        from nyx_core.posix.descriptors import Descriptors, below_the_hard_limit
        from nyx_core.sandbox.confinement import Confinement
        extra = [os.dup(1) for _ in range(5)]
        report = Descriptors(below_the_hard_limit).apply(Confinement(keep_descriptors=(0, 1, 2, extra[2])), ())
        print(json.dumps([report.state.value, dict(report.facts)["open"].split(), str(extra[2])]))
    """
    state, left, kept = in_a_process(code)
    assert state == "active"
    assert left == ["0", "1", "2", kept]


def test_descriptors_stay_open_if_requested() -> None:
    """`None` keeps all, and the layer is disabled."""
    report = Descriptors(below_the_hard_limit).apply(Confinement(keep_descriptors=None), ())
    assert report.state is LayerState.DISABLED


def test_a_descriptor_that_does_not_close_is_reported() -> None:
    """If the list still has an open descriptor, the report names it."""
    reader, writer = os.pipe()
    duplicate = os.dup(reader)
    answers = iter([[reader], [duplicate]])
    report = Descriptors(lambda: next(answers)).apply(Confinement(), ())
    os.close(duplicate)
    os.close(writer)
    assert report.state is LayerState.UNAVAILABLE
    assert str(duplicate) in report.reason


def test_becoming_another_user_is_irreversible() -> None:
    """All ids change, no group is left, and the process can't become root again."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    code = """if True:
        import json, os
        from nyx_core.posix.process import Privileges
        from nyx_core.sandbox.confinement import Confinement, RunAs
        report = Privileges().apply(Confinement(run_as=RunAs(65534, 65534)), ())
        ids = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
        print(json.dumps([report.state.value, ids, Privileges().probe().state.value]))
    """
    state, ids, afterwards = in_a_process(code)
    assert state == "active"
    assert set(ids) == {65534}
    assert afterwards == "unavailable"


def test_an_ordinary_user_cannot_become_another() -> None:
    """Without privileges the call fails with an errno, which the engine reports."""
    code = """if True:
        import json, os
        from nyx_core.posix.process import Privileges
        from nyx_core.sandbox.confinement import Confinement, RunAs
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            Privileges().apply(Confinement(run_as=RunAs(1, 1)), ())
        except PermissionError as error:
            print(json.dumps(error.errno))
    """
    assert in_a_process(code) == errno.EPERM


def test_staying_the_same_user_is_disabled() -> None:
    """Without `run_as` nothing changes."""
    assert Privileges().apply(Confinement(), ()).state is LayerState.DISABLED


def test_an_announced_policy_only_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the policy that is in force; an unknown name means nothing."""
    monkeypatch.setenv("SANDBOX_POLICY", "strict")
    assert announced_confinement() == confinement_for(SandboxPolicy.STRICT)
    monkeypatch.setenv("SANDBOX_POLICY", "unknown")
    assert announced_confinement() is None


def test_the_interpreter_is_found_where_it_is() -> None:
    """The standard library is among the paths, and each is absolute and exists."""
    found = python_paths()
    assert os.path.dirname(os.__file__) in found
    assert all(os.path.isabs(path) and os.path.exists(path) for path in found)
    assert len(found) == len(set(found))


def test_usage_is_measured() -> None:
    """Memory is measured; processes are counted, or the user is exempt with a reason."""
    seen = psutil_usage()
    assert seen.address_space is not None
    assert seen.address_space > 1 << 20
    assert seen.processes_exempt if os.getuid() == 0 else (seen.user_tasks or 0) >= 1


def test_memory_is_limited_where_there_is_no_limit_on_address_space() -> None:
    """OpenBSD has no RLIMIT_AS: RLIMIT_DATA limits memory instead."""
    code = """if True:
        import json, resource
        del resource.RLIMIT_AS
        import nyx_core.sandbox
        from nyx_core.sandbox.platform import current_platform
        from nyx_core.posix.rlimits import Rlimits, RlimitUsage
        from nyx_core.sandbox.confinement import Confinement
        names = [layer.name for layer in current_platform("openbsd7").layers]
        report = Rlimits(lambda: RlimitUsage(1, 1, 1)).apply(Confinement(), ())
        memory = next(limit for limit in report.limits if limit.name == "memory")
        print(json.dumps([names[-1], list(resource.getrlimit(resource.RLIMIT_DATA)), [memory.soft, memory.hard]]))
    """
    last, data, reported = in_a_process(code)
    assert last == "pledge"
    assert data == reported == [64 << 20, 128 << 20]


@pytest.mark.parametrize(
    ("name", "lock", "call"),
    [
        ("darwin", "seatbelt", "confine(Confinement(environment=None, keep_descriptors=None))"),
        ("openbsd7", "pledge", "confine(Confinement(environment=None, keep_descriptors=None))"),
        ("openbsd7", "pledge", "apply_policy(SandboxPolicy.MINIMAL)"),
        ("openbsd7", "pledge", "apply_policy(SandboxPolicy.STRICT)"),
    ],
)
def test_confining_fails_closed_without_the_lock(name: str, lock: str, call: str) -> None:
    """On a system without the lock, the layers before it hold, and confining raises."""
    code = f"""if True:
        import json, sys
        import psutil
        sys.platform = {name!r}
        from nyx_core.sandbox import Confinement, SandboxError, SandboxPolicy, apply_policy, confine
        try:
            {call}
        except SandboxError as error:
            found = [[layer.name, layer.holds] for layer in error.report.layers]
            print(json.dumps([error.layer, found, [limit.name for limit in error.report.limits]]))
    """
    layer, found, limits = in_a_process(code)
    assert layer == lock
    assert found == [
        ["process", True],
        ["descriptors", True],
        ["environment", True],
        ["privileges", True],
        ["limits", True],
        [lock, False],
    ]
    assert limits == ["memory", "processes", "open_files", "core"]


@pytest.mark.parametrize("policy", ["MINIMAL", "STRICT"])
def test_macos_applies_rlimits_without_seatbelt(policy: str) -> None:
    """Without seatbelt, the ready-made policies apply the rlimits on macOS and log a warning."""
    code = f"""if True:
        import json, logging, sys
        import psutil
        said = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        logging.getLogger("nyx.sandbox").addHandler(handler)
        sys.platform = "darwin"
        from nyx_core.sandbox import SandboxPolicy, apply_policy
        status = apply_policy(SandboxPolicy.{policy})
        import resource
        print(json.dumps([status.name, resource.getrlimit(resource.RLIMIT_NOFILE), said]))
    """
    status, limit, said = in_a_process(code)
    assert status == "APPLIED"
    assert limit == [64, 128]
    assert [line for line in said if line.startswith("seatbelt unavailable")] == said


@pytest.mark.parametrize("name", ["darwin", "openbsd7"])
def test_a_survey_works_everywhere(name: str) -> None:
    """`probe` reports every layer and raises nothing on any system."""
    code = f"""if True:
        import json, sys
        import psutil
        sys.platform = {name!r}
        from nyx_core.sandbox import probe
        report = probe()
        print(json.dumps([[layer.name, layer.state.value, layer.reason] for layer in report.layers]))
    """
    found = in_a_process(code)
    assert [state for layer, state, _ in found if layer in ("seatbelt", "pledge")] == ["unavailable"]
    assert all(reason for _, _, reason in found)
