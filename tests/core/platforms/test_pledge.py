"""Unveil, lock, pledge: the arguments, the order of calls, and the result of a failure between them."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_core.openbsd.pledge import PLEDGE_ERRORS, UNVEIL_ERRORS, Pledge, system_libc
from nyx_core.openbsd.promises import promises, unveils
from nyx_core.sandbox.confinement import Confinement, Network, SandboxPolicy, confinement_for
from nyx_core.sandbox.engine import enforce
from nyx_core.sandbox.platform import Platform, Posture, current_platform
from nyx_core.sandbox.report import LayerReport, LayerState, SandboxError
from tests.core.platforms.recorded_library import RecordedLibrary

MINIMAL = confinement_for(SandboxPolicy.MINIMAL)
STRICT = confinement_for(SandboxPolicy.STRICT)
BOUND = Confinement(readable=("/data",), writable=("/data/out", "/scratch"), python_runtime=False)
KNOWN = frozenset(
    [
        "audio",
        "bpf",
        "chown",
        "cpath",
        "disklabel",
        "dns",
        "dpath",
        "drm",
        "error",
        "exec",
        "fattr",
        "flock",
        "getpw",
        "id",
        "inet",
        "mcast",
        "pf",
        "proc",
        "prot_exec",
        "ps",
        "recvfd",
        "route",
        "rpath",
        "sendfd",
        "settime",
        "stdio",
        "tape",
        "tmppath",
        "tty",
        "unix",
        "unveil",
        "video",
        "vminfo",
        "vmm",
        "wpath",
        "wroute",
    ]
)


def libc(fails_at: str = "", number: int = 0) -> RecordedLibrary:
    """A C library whose call at `fails_at` fails with errno `number`: `pledge`, `lock`, or a path to unveil."""

    def answer(call: str) -> int:
        if call == fails_at:
            ctypes.set_errno(number)
            return -1
        return 0

    return RecordedLibrary(
        pledge=lambda promised, execution: answer("pledge"),
        unveil=lambda path, letters: answer("lock" if path is None else path.decode()),
    )


def layer(library: RecordedLibrary) -> Pledge:
    """The layer with `library`, and an interpreter with one path."""
    return Pledge(lambda: ("/opt/python",), lambda: library)


def test_minimal_promises_files_and_sockets_but_no_child() -> None:
    """MINIMAL has neither `proc`, which permits fork, nor `exec`."""
    assert promises(MINIMAL) == (
        "stdio rpath flock sendfd recvfd error wpath cpath fattr inet dns mcast unix prot_exec"
    )


def test_strict_promises_neither_sockets_nor_writes() -> None:
    """STRICT is MINIMAL without the promises for sockets and for changing files."""
    assert promises(STRICT) == "stdio rpath flock sendfd recvfd error prot_exec"


def test_strict_after_minimal_only_gives_up() -> None:
    """STRICT promises less than MINIMAL and unveils nothing, so the kernel accepts it afterwards."""
    assert set(promises(STRICT).split()) < set(promises(MINIMAL).split())
    assert unveils(STRICT, ("/opt/python",)) == ()


@pytest.mark.parametrize("subprocess", [False, True])
@pytest.mark.parametrize("native_code", [False, True])
@pytest.mark.parametrize("network", [Network.none(), Network.tcp(connect=(1,)), Network.unrestricted()])
def test_every_promise_is_one_that_openbsd_knows(subprocess: bool, native_code: bool, network: Network) -> None:
    """Unknown promises are EINVAL. `unveil`, and promises to change users or time, are never made."""
    wanted = replace(BOUND, subprocess=subprocess, native_code=native_code, network=network)
    words = promises(wanted).split()
    assert set(words) <= KNOWN
    assert len(words) == len(set(words))
    assert not {"unveil", "id", "settime", "chown", "tmppath", "dpath"} & set(words)
    assert ({"proc", "exec"} <= set(words)) is subprocess
    assert ("prot_exec" in words) is native_code


def test_paths_are_unveiled_locked_and_then_pledged() -> None:
    """First every path is unveiled once, then comes the lock, then the promises."""
    library = libc()
    report = layer(library).apply(BOUND, ())
    assert report.state is LayerState.ACTIVE, report.reason
    assert library.calls == [
        ("unveil", b"/data", b"r"),
        ("unveil", b"/data/out", b"rwc"),
        ("unveil", b"/dev/null", b"rw"),
        ("unveil", b"/scratch", b"rwc"),
        ("unveil", None, None),
        ("pledge", b"stdio rpath flock sendfd recvfd error wpath cpath fattr prot_exec", None),
    ]


def test_signatures_are_two_texts_and_an_int() -> None:
    """Both calls take two `const char *` and return an `int`."""
    library = libc()
    layer(library).apply(BOUND, ())
    for function in library.functions.values():
        assert function.restype is ctypes.c_int
        assert function.argtypes == [ctypes.c_char_p, ctypes.c_char_p]


def test_where_no_path_is_restricted_only_promises_are_made() -> None:
    """MINIMAL unveils nothing."""
    library = libc()
    layer(library).apply(MINIMAL, ())
    assert library.order == ["pledge"]


def kernel_view(view: tuple[tuple[str, str], ...], path: str) -> set[str]:
    """What unveil(2) gives for `path`: the permissions of the nearest unveiled directory above it."""
    covering = [
        (above, letters) for above, letters in view if above == path or path.startswith(above.rstrip("/") + "/")
    ]
    return set(max(covering, key=lambda pair: len(pair[0]))[1]) if covering else set()


names = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(lambda parts: "/" + "/".join(parts))
paths = st.lists(names, max_size=4).map(tuple)


@given(paths, paths, names)
def test_the_nearest_unveil_grants_what_any_rule_above_grants(
    readable: tuple[str, ...], writable: tuple[str, ...], path: str
) -> None:
    """A more specific path also has the permissions of the paths above it."""
    wanted = Confinement(readable=readable, writable=writable, python_runtime=False)
    view = unveils(wanted, ())
    if not view:
        assert not wanted.reads_restricted
        return
    covers = [rule for rule in writable if rule == path or path.startswith(rule.rstrip("/") + "/")]
    reads = [rule for rule in readable if rule == path or path.startswith(rule.rstrip("/") + "/")]
    expected = set("rwc") if covers else set("r") if reads else set()
    assert kernel_view(view, path) == expected


def test_executables_are_unveiled_only_for_those_who_may_start_them() -> None:
    """Without subprocess, an executable path isn't unveiled."""
    wanted = replace(BOUND, executable=("/bin",))
    assert "/bin" not in dict(unveils(wanted, ()))
    assert dict(unveils(replace(wanted, subprocess=True), ()))["/bin"] == "rx"


def test_the_runtime_is_readable_and_names_only_with_a_network() -> None:
    """The interpreter's files are unveiled for reading; the resolver's only with a network."""
    alone = dict(unveils(replace(BOUND, python_runtime=True), ("/opt/python",)))
    connected = dict(unveils(replace(BOUND, network=Network.unrestricted()), ()))
    assert alone["/opt/python"] == alone["/usr/lib"] == "r"
    assert "/etc/resolv.conf" not in alone
    assert connected["/etc/resolv.conf"] == "r"


@pytest.mark.parametrize("number", sorted(PLEDGE_ERRORS))
def test_a_refused_pledge_alone_changes_nothing_and_is_unavailable(number: int) -> None:
    """If nothing was unveiled before, the layer is unavailable, with errno and meaning."""
    report = layer(libc("pledge", number)).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE
    assert f"{errno.errorcode[number]}, {PLEDGE_ERRORS[number]}" in report.reason


@pytest.mark.parametrize("number", sorted(UNVEIL_ERRORS))
def test_a_refused_first_unveil_changes_nothing_and_is_unavailable(number: int) -> None:
    """If the first call fails, the view is unchanged and no call follows."""
    library = libc("/data", number)
    report = layer(library).apply(BOUND, ())
    assert report.state is LayerState.UNAVAILABLE
    assert f"{errno.errorcode[number]}, {UNVEIL_ERRORS[number]}" in report.reason
    assert library.order == ["unveil"]


@pytest.mark.parametrize(("call", "done"), [("/data/out", 1), ("/scratch", 3), ("lock", 4), ("pledge", 4)])
def test_a_failure_after_the_first_unveil_ends_the_start(call: str, done: int) -> None:
    """Unveiling can't be undone, so a later failure raises even if pledge may degrade."""
    wanted = replace(BOUND, may_degrade=frozenset({"pledge"}))
    before = (LayerReport("limits", LayerState.ACTIVE, "set"),)
    with pytest.raises(SandboxError, match=f"{done} of 4 paths are unveiled irreversibly") as caught:
        layer(libc(call, errno.EPERM)).apply(wanted, before)
    assert "end this process" in str(caught.value)
    assert caught.value.layer == "pledge"
    assert caught.value.report is not None
    assert [entry.name for entry in caught.value.report.layers] == ["limits", "pledge"]


def test_the_engine_lets_that_failure_through() -> None:
    """`confine` raises that error unchanged and doesn't run the witness."""
    platform = Platform(
        "openbsd", (layer(libc("pledge", errno.EPERM)),), lambda *_: pytest.fail("ran"), lambda: (), Posture
    )
    with pytest.raises(SandboxError, match="end this process"):
        enforce(platform, replace(BOUND, may_degrade=frozenset({"pledge"})))


def test_ports_are_not_claimed() -> None:
    """`inet` permits every port and UDP, so a confinement to TCP ports is degraded and says why."""
    report = layer(libc()).apply(replace(BOUND, network=Network.tcp(connect=(443,))), ())
    assert report.state is LayerState.DEGRADED
    assert not report.holds
    assert "inet admits every port, and UDP" in report.reason


@pytest.mark.parametrize("missing", ["pledge", "unveil"])
def test_a_library_without_the_calls_is_unavailable(missing: str) -> None:
    """If one of the functions is missing, neither is called."""
    library = libc()
    del library.functions[missing]
    for report in (layer(library).probe(), layer(library).apply(BOUND, ())):
        assert report.state is LayerState.UNAVAILABLE
        assert missing in report.reason
    assert not library.calls


def test_the_c_library_of_this_system_is_really_asked() -> None:
    """Elsewhere the C library has no pledge, and the layer reports that instead of failing open."""
    if hasattr(system_libc(), "pledge"):
        pytest.skip("this system has pledge: asking it here would confine the test run")
    report = Pledge(tuple).apply(MINIMAL, ())
    assert report.state is LayerState.UNAVAILABLE


def test_the_platform_of_openbsd_pledges_last() -> None:
    """Pledge comes after the layers that need more promises. The release number in the name is ignored."""
    platform = current_platform("openbsd7")
    assert platform is not None
    names_in_order = [entry.name for entry in platform.layers]
    assert names_in_order == ["process", "descriptors", "environment", "privileges", "limits", "pledge"]
