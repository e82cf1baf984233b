"""The seatbelt profile as text: what it allows and denies, decided by the last matching rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_core.macos.profile import profile, quoted
from nyx_core.sandbox.confinement import Confinement, Network, SandboxPolicy, confinement_for
from tests.core.platforms.seatbelt_reader import allows, read

MINIMAL = profile(confinement_for(SandboxPolicy.MINIMAL), ())
STRICT = profile(confinement_for(SandboxPolicy.STRICT), ())
BOUND = Confinement(readable=("/data",), writable=("/data/out",))


def test_minimal_is_exactly_this() -> None:
    """MINIMAL refuses new processes, including those that others would start for it, and nothing else."""
    assert MINIMAL.splitlines() == [
        "(version 1)",
        "(allow default)",
        "(deny process-fork)",
        "(deny process-exec*)",
        "(deny job-creation)",
        "(deny lsopen)",
        "(deny appleevent-send)",
        '(deny mach-lookup (global-name "com.apple.coreservices.launchservicesd"))',
    ]


@pytest.mark.parametrize("operation", ["process-fork", "process-exec", "process-exec-interpreter", "lsopen"])
@pytest.mark.parametrize("text", [MINIMAL, STRICT], ids=["minimal", "strict"])
def test_no_policy_starts_a_process(text: str, operation: str) -> None:
    """Neither policy allows fork, exec, or LaunchServices to start a program."""
    assert not allows(text, operation, path="/bin/sh")


@pytest.mark.parametrize("operation", ["network-outbound", "network-bind", "network-inbound"])
def test_only_strict_closes_the_network(operation: str) -> None:
    """Sockets work under MINIMAL. Under STRICT, connect, bind and listen are denied."""
    assert allows(MINIMAL, operation, tcp="443")
    assert not allows(STRICT, operation, tcp="443")


@pytest.mark.parametrize("operation", ["file-write-data", "file-write-create", "file-write-unlink", "file-write-mode"])
def test_only_strict_closes_writing(operation: str) -> None:
    """STRICT allows writing to /dev/null only, and reading everywhere."""
    assert allows(MINIMAL, operation, path="/tmp/x")
    assert not allows(STRICT, operation, path="/tmp/x")
    assert allows(STRICT, "file-write-data", path="/dev/null")
    assert allows(STRICT, "file-read-data", path="/etc/passwd")


def test_signals_reach_only_the_process_itself() -> None:
    """Without ipc, no other process can be signalled or inspected."""
    assert allows(STRICT, "signal", name="self")
    assert not allows(STRICT, "signal", name="others")
    assert not allows(STRICT, "process-info-pidinfo", name="others")
    assert not allows(STRICT, "mach-priv-task-port")


def test_paths_are_granted_below_their_prefix() -> None:
    """Grants for reading and writing cover whole components below the prefix only."""
    text = profile(BOUND, ("/opt/python",))
    assert allows(text, "file-read-data", path="/data/in/x")
    assert allows(text, "file-read-data", path="/opt/python/os.py")
    assert not allows(text, "file-read-data", path="/data2/x")
    assert not allows(text, "file-read-data", path="/etc/master.passwd")
    assert allows(text, "file-write-data", path="/data/out/x")
    assert not allows(text, "file-write-data", path="/data/x")
    assert not allows(text, "file-write-data", path="/data/outer")


def test_what_is_writable_is_readable() -> None:
    """A writable path is readable."""
    text = profile(replace(BOUND, readable=()), ())
    assert allows(text, "file-read-data", path="/data/out/x")


def test_without_the_runtime_nothing_but_the_grants_is_read() -> None:
    """`python_runtime=False` leaves out the libraries."""
    text = profile(replace(BOUND, python_runtime=False), ("/opt/python",))
    assert not allows(text, "file-read-data", path="/usr/lib/libz.dylib")
    assert not allows(text, "file-read-data", path="/opt/python/os.py")


def test_tcp_ports_are_granted_one_by_one() -> None:
    """Only the named ports are allowed, each in its direction, and the resolver."""
    text = profile(replace(BOUND, network=Network.tcp(connect=(443,), bind=(8080,))), ())
    assert allows(text, "network-outbound", tcp="443")
    assert not allows(text, "network-outbound", tcp="8080")
    assert allows(text, "network-bind", tcp="8080")
    assert allows(text, "network-inbound", tcp="8080")
    assert not allows(text, "network-bind", tcp="443")
    assert allows(text, "network-outbound", path="/private/var/run/mDNSResponder")


def test_executables_are_granted_below_their_prefix() -> None:
    """With subprocess, only files below an executable path start; with `/` all do."""
    some = profile(replace(BOUND, subprocess=True, executable=("/opt/bin",)), ())
    every = profile(replace(BOUND, subprocess=True, executable=("/",)), ())
    assert allows(some, "process-fork")
    assert allows(some, "process-exec", path="/opt/bin/tool")
    assert not allows(some, "process-exec", path="/bin/sh")
    assert allows(every, "process-exec", path="/bin/sh")


def test_frozen_code_maps_nothing_new() -> None:
    """`native_code=False` denies mapping files as code and generating code."""
    text = profile(replace(BOUND, native_code=False), ())
    assert not allows(text, "file-map-executable", path="/data/x.so")
    assert not allows(text, "dynamic-code-generation")


@pytest.mark.parametrize("path", ["/a\nb", "/a\x00", "/a\x7f", "/a\r(allow default)"])
def test_control_characters_are_refused(path: str) -> None:
    """A path that could break a line is refused, not escaped."""
    with pytest.raises(ValueError, match="control characters"):
        quoted(path)


def test_a_path_cannot_end_its_own_string() -> None:
    """Quotes and backslashes in a path stay in its string, so it can't inject a rule."""
    path = '/a")) (allow default) (deny file* (subpath "\\'
    text = profile(replace(BOUND, readable=(path,)), ())
    assert not allows(text, "file-write-data", path="/etc/x")
    assert allows(text, "file-read-data", path=path)


@given(st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f"), min_size=1))
def test_every_other_path_reads_back(name: str) -> None:
    """A path without control characters is read back from the text unchanged."""
    assert read(f"(subpath {quoted('/' + name)})") == [["subpath", '"/' + name]]


def test_every_profile_is_balanced_and_begins_with_its_version() -> None:
    """Any combination of options gives a readable profile whose second rule is the default."""
    for subprocess in (False, True):
        for network in (Network.none(), Network.tcp(connect=(1,)), Network.unrestricted()):
            wanted = replace(BOUND, subprocess=subprocess, network=network, native_code=False)
            rules = read(profile(wanted, ("/opt/python",)))
            assert rules[:2] == [["version", "1"], ["allow", "default"]]
