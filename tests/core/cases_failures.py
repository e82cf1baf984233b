"""Layers that fail on purpose: filtered system calls, older ABIs, missing paths."""

import errno
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from nyx_core.linux import landlock
from nyx_core.linux.landlock import Landlock
from nyx_core.linux.libc import prctl, syscall
from nyx_core.linux.platform import platform
from nyx_core.linux.seccomp import install
from nyx_core.linux.seccomp_filter import ALLOW, ArgumentMatch, Arm, Rule, compile_rules, refuse
from nyx_core.linux.syscall_table import native_table
from nyx_core.sandbox import (
    Confinement,
    LayerReport,
    LayerState,
    Network,
    RunAs,
    SandboxError,
    SandboxPolicy,
    SandboxReport,
    apply_policy,
    confine,
)
from nyx_core.sandbox.confinement import confinement_for
from nyx_core.sandbox.engine import enforce, survey
from nyx_core.sandbox.platform import Platform

NO_NEW_PRIVS = 38
Case = Callable[[], Any]


def make_call_fail(call: str, number: int, first: int | None = None) -> None:
    """Make `call` fail with an errno from now on; with `first`, only if that is its first argument."""
    table = native_table()
    if table is None:
        raise RuntimeError("no table for this machine")
    action = refuse(number)
    rule = Rule(action) if first is None else Rule(ALLOW, (Arm((ArgumentMatch(0, (first,)),), action),))
    if os.getuid() != 0:
        prctl(NO_NEW_PRIVS, 1)
    install(compile_rules(table, {call: rule}))


def outcome_of(act: Case) -> Any:
    """Layer and text of the error, and the states in its report; or the result of `act`."""
    try:
        done = act()
    except SandboxError as error:
        states = {layer.name: layer.state.value for layer in error.report.layers} if error.report else {}
        return {"layer": error.layer, "text": str(error), "states": states}
    if isinstance(done, SandboxReport):
        return {layer.name: [layer.state.value, layer.stand_in, layer.reason] for layer in done.layers}
    return done


def with_failing_call(call: str, number: int, act: Case, first: int | None = None) -> Case:
    def case() -> Any:
        make_call_fail(call, number, first)
        return outcome_of(act)

    return case


def strict() -> Any:
    return apply_policy(SandboxPolicy.STRICT).value


def platform_with_abi(abi: int) -> Platform:
    layers = tuple(Landlock(newest=abi) if layer.name == "landlock" else layer for layer in platform().layers)
    return platform()._replace(layers=layers)


def refused(act: Case) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "succeeded"


def on_abi(abi: int) -> Case:
    """A sealed process with a writable directory, on a kernel that looks older, and what it can do outside."""

    def case() -> Any:
        for name in ("data", "other", "outside"):
            os.mkdir(name)
            open(f"{name}/file", "w").close()
        here = os.getcwd()
        wanted = Confinement(writable=(f"{here}/data", f"{here}/other"))
        report = enforce(platform_with_abi(abi), wanted)
        layer = report.layer("landlock")
        return {
            "state": layer.state.value if layer else "",
            "stand_in": layer.stand_in if layer else "",
            "masked": dict(layer.facts)["masked"] if layer else "",
            "inside": refused(lambda: open("data/new", "w").close()),
            "outside": refused(lambda: open("outside/new", "w").close()),
            "truncate": refused(lambda: os.truncate("outside/file", 0)),
            "empty": refused(lambda: os.close(os.open("outside/file", os.O_RDONLY | os.O_TRUNC))),
            "move": refused(lambda: os.rename("data/file", "other/moved")),
        }

    return case


def tcp_on_abi_3() -> Any:
    return outcome_of(lambda: enforce(platform_with_abi(3), Confinement(network=Network.tcp(connect=(443,)))))


def signals_of_children_on_abi_5() -> Any:
    return outcome_of(lambda: enforce(platform_with_abi(5), Confinement(subprocess=True)))


def missing_path() -> Any:
    return outcome_of(lambda: confine(Confinement(readable=("/nonexistent/path",))))


def missing_runtime_path_is_no_error() -> Any:
    return outcome_of(lambda: confine(Confinement(readable=("/usr",))))


def missing_working_directory() -> Any:
    return outcome_of(lambda: confine(Confinement(working_directory="/nonexistent/path")))


def with_a_thread(act: Case) -> Case:
    """A thread exists before. Afterwards it attempts what is forbidden."""

    def case() -> Any:
        go, found = threading.Event(), {}

        def work() -> None:
            go.wait()
            found["fork"] = refused(lambda: os.waitpid(os.fork(), 0))
            found["socket"] = refused(lambda: socket.socket().close())
            found["write"] = refused(lambda: open("new", "w").close())
            found["read"] = refused(lambda: open("/etc/passwd").close())

        thread = threading.Thread(target=work)
        thread.start()
        answer = outcome_of(act)
        go.set()
        thread.join()
        return [answer, found]

    return case


def degraded_where_allowed() -> Any:
    """Without Landlock, if that is allowed: writing is refused, reading isn't, and the report says so."""
    make_call_fail("landlock_create_ruleset", errno.ENOSYS)
    os.mkdir("data")
    wanted = Confinement(writable=(f"{os.getcwd()}/data",), may_degrade=frozenset({"landlock"}))
    report = confine(wanted)
    layer = report.layer("landlock")
    tried = {result.axis for result in report.witness}
    return [layer.state.value if layer else "", refused(lambda: open("data/x", "w").close()), "reads" in tried]


def namespaces_refused(required: bool) -> Case:
    def case() -> Any:
        make_call_fail("unshare", errno.EPERM)
        wanted = Confinement(namespaces=frozenset({"user"}))
        return outcome_of(lambda: confine(replace(wanted, may_degrade=frozenset()) if required else wanted))

    return case


def inside_an_outer_filter_and_domain() -> Any:
    """Confining inside an outer filter and Landlock domain works, and both restrict."""
    os.mkdir("data")
    os.mkdir("elsewhere")
    here = os.getcwd()
    prctl(NO_NEW_PRIVS, 1)
    landlock.enter_domain(
        landlock.ruleset_for(Confinement(readable=("/",), writable=(f"{here}/data",), ipc=True), 7), 7, 0
    )
    make_call_fail("mkdirat", errno.EPERM)
    make_call_fail("mkdir", errno.EPERM)
    report = confine(Confinement(readable=("/usr",), writable=(f"{here}/data", f"{here}/elsewhere")))
    return [
        {layer.name: layer.state.value for layer in report.layers}["landlock"],
        refused(lambda: open("data/x", "w").close()),
        refused(lambda: open("elsewhere/x", "w").close()),
        refused(lambda: os.mkdir("data/sub")),
        refused(lambda: open("/etc/passwd").close()),
    ]


def descriptors_that_stay_open() -> Any:
    os.dup2(0, 30)
    make_call_fail("close_range", errno.EPERM)
    make_call_fail("close", errno.EPERM)
    return outcome_of(lambda: confine(Confinement()))


def an_environment_that_cannot_be_found() -> Any:
    make_call_fail("openat", errno.EPERM)
    return outcome_of(lambda: confine(Confinement(keep_descriptors=None)))


def an_os_that_cannot_tell() -> Any:
    """If only the environment says what is in force, it can forbid but proves nothing."""
    without_posture = platform()._replace(posture=None)
    os.environ["SANDBOX_POLICY"] = "strict"
    less = outcome_of(lambda: enforce(without_posture, confinement_for(SandboxPolicy.MINIMAL)))
    report = enforce(without_posture, confinement_for(SandboxPolicy.STRICT))
    return [less["text"], report.repeated, refused(os.fork)]


def sixteen_domains() -> Any:
    """The kernel stacks sixteen Landlock domains. The next one fails, and so does confining."""
    prctl(NO_NEW_PRIVS, 1)
    ruleset = landlock.ruleset_for(Confinement(readable=("/",), writable=("/",), ipc=False), 7)
    for _ in range(16):
        landlock.enter_domain(ruleset, 7, 0)
    return outcome_of(lambda: confine(Confinement()))


def survey_changes_nothing() -> Any:
    before = (dict(os.environ), os.listdir("/proc/self/fd"))
    report = survey(platform())
    same = before == (dict(os.environ), os.listdir("/proc/self/fd"))
    syscall("unshare", 0)
    return [same, {layer.name: layer.state.value for layer in report.layers}]


def survey_without_landlock() -> Any:
    make_call_fail("landlock_create_ruleset", errno.EOPNOTSUPP)
    layer = survey(platform()).layer("landlock")
    return [layer.state.value, layer.reason, layer.remedy] if layer else None


class FalseLayer(NamedTuple):
    """A layer that claims to work and does nothing."""

    name: str = "seccomp"

    def probe(self) -> LayerReport:
        return LayerReport(self.name, LayerState.ACTIVE, "claimed")

    def apply(self, _wanted: Confinement, _before: tuple[LayerReport, ...], /) -> LayerReport:
        return LayerReport(self.name, LayerState.ACTIVE, "claimed")


def a_layer_that_does_nothing() -> Any:
    real = platform()
    layers = tuple(FalseLayer() if layer.name == "seccomp" else layer for layer in real.layers)
    return outcome_of(lambda: enforce(real._replace(layers=layers), confinement_for(SandboxPolicy.STRICT)))


CASES: dict[str, Case] = {
    "a_layer_that_does_nothing": a_layer_that_does_nothing,
    **{
        f"landlock {name} sealed": with_failing_call(
            "landlock_create_ruleset", getattr(errno, name), lambda: confine(Confinement())
        )
        for name in ("ENOSYS", "EOPNOTSUPP", "EINVAL", "E2BIG", "EPERM")
    },
    **{
        f"landlock {name} strict": with_failing_call("landlock_create_ruleset", getattr(errno, name), strict)
        for name in ("ENOSYS", "EOPNOTSUPP")
    },
    "landlock_add_rule": with_failing_call("landlock_add_rule", errno.EINVAL, lambda: confine(Confinement())),
    "landlock_restrict_self": with_failing_call("landlock_restrict_self", errno.E2BIG, lambda: confine(Confinement())),
    "landlock_restrict_self strict": with_failing_call("landlock_restrict_self", errno.EPERM, strict),
    "no_new_privs": with_failing_call("prctl", errno.EPERM, strict, first=NO_NEW_PRIVS),
    "seccomp": with_failing_call("seccomp", errno.EINVAL, strict),
    "capabilities": with_failing_call("capset", errno.EPERM, lambda: confine(Confinement())),
    "limits": with_failing_call("prlimit64", errno.EPERM, strict),
    "privileges": with_failing_call("setresuid", errno.EPERM, lambda: confine(Confinement(run_as=RunAs(7, 7)))),
    "process": with_failing_call("setsid", errno.EPERM, lambda: confine(Confinement(new_session=True))),
    **{f"abi {abi}": on_abi(abi) for abi in range(1, 8)},
    "tcp_on_abi_3": tcp_on_abi_3,
    "signals_of_children_on_abi_5": signals_of_children_on_abi_5,
    "missing_path": missing_path,
    "missing_runtime_path_is_no_error": missing_runtime_path_is_no_error,
    "missing_working_directory": missing_working_directory,
    "thread strict": with_a_thread(strict),
    "thread minimal": with_a_thread(lambda: apply_policy(SandboxPolicy.MINIMAL).value),
    "thread sealed": with_a_thread(lambda: confine(Confinement())),
    "degraded_where_allowed": degraded_where_allowed,
    "namespaces required": namespaces_refused(True),
    "namespaces optional": namespaces_refused(False),
    "cgroup required": lambda: outcome_of(lambda: confine(Confinement(cgroup=True, may_degrade=frozenset()))),
    "inside_an_outer_filter_and_domain": inside_an_outer_filter_and_domain,
    "descriptors": descriptors_that_stay_open,
    "environment": an_environment_that_cannot_be_found,
    "an_os_that_cannot_tell": an_os_that_cannot_tell,
    "sixteen_domains": sixteen_domains,
    "survey_changes_nothing": survey_changes_nothing,
    "survey_without_landlock": survey_without_landlock,
    "strict_report": lambda: outcome_of(lambda: enforce(platform(), confinement_for(SandboxPolicy.STRICT))),
}
