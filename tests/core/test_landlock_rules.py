"""The ruleset of a confinement, for each ABI from 1 to 9."""

import pytest

from nyx_core.linux import landlock_rules as rules
from nyx_core.linux.landlock_rules import ruleset_for, uncovered
from nyx_core.sandbox import Confinement, Network, SandboxPolicy
from nyx_core.sandbox.confinement import confinement_for

ABIS = range(1, 10)
SEALED = Confinement(python_runtime=False)
# From linux/landlock.h, by hand: every right that an ABI has.
RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF, 6: 0xFFFF, 7: 0xFFFF, 8: 0xFFFF, 9: 0x1FFFF}


@pytest.mark.parametrize("abi", ABIS)
def test_sealed_handles_every_right_the_abi_has_and_no_other(abi: int) -> None:
    """Every right of the ABI is refused by default; an unknown bit would be EINVAL."""
    ruleset = ruleset_for(SEALED, abi)
    assert ruleset.filesystem == RIGHTS[abi]
    assert ruleset.network == (3 if abi >= 4 else 0)
    assert ruleset.scoped == (3 if abi >= 6 else 0)
    assert ruleset.paths == ()


@pytest.mark.parametrize("abi", ABIS)
def test_no_rule_names_a_right_that_is_not_handled(abi: int) -> None:
    """The kernel refuses a rule for a right that its ruleset doesn't handle."""
    wanted = Confinement(readable=("/r",), writable=("/w",), executable=("/x",), subprocess=True)
    ruleset = ruleset_for(wanted, abi, ("/lib",))
    assert ruleset.paths
    for rule in ruleset.paths:
        assert rule.rights
        assert rule.rights & ~ruleset.filesystem == 0


@pytest.mark.parametrize("abi", ABIS)
def test_minimal_restricts_nothing_that_landlock_mediates(abi: int) -> None:
    """MINIMAL doesn't restrict files, sockets or signals."""
    assert ruleset_for(confinement_for(SandboxPolicy.MINIMAL), abi).empty


@pytest.mark.parametrize("abi", ABIS)
def test_strict_handles_writes_and_leaves_reads(abi: int) -> None:
    """STRICT refuses every write except to /dev/null, and handles no right to read or execute."""
    ruleset = ruleset_for(confinement_for(SandboxPolicy.STRICT), abi)
    assert ruleset.filesystem & (rules.READS | rules.EXECUTE) == 0
    assert ruleset.filesystem & RIGHTS[abi] & rules.WRITES == RIGHTS[abi] & rules.WRITES
    assert [rule.path for rule in ruleset.paths] == ["/dev/null"]


def test_a_writable_path_gives_no_devices() -> None:
    """A writable path grants neither device nodes nor their ioctls, nor sockets."""
    (rule,) = ruleset_for(Confinement(writable=("/w",), python_runtime=False), 9).paths
    assert rule.rights & (rules.MAKE_CHAR | rules.MAKE_BLOCK | rules.IOCTL_DEV | rules.MAKE_SOCK | rules.EXECUTE) == 0
    assert rule.rights & (rules.WRITE_FILE | rules.READ_FILE | rules.REFER | rules.TRUNCATE)
    wanted = Confinement(writable=("/w",), python_runtime=False, network=Network.unrestricted())
    assert ruleset_for(wanted, 9).paths[0].rights & rules.MAKE_SOCK


def test_one_path_granted_twice_has_one_rule() -> None:
    """A path that may be read and executed has one rule with both rights."""
    wanted = Confinement(readable=("/p",), executable=("/p",), python_runtime=False)
    (rule,) = ruleset_for(wanted, 7).paths
    assert rule.rights == rules.READS | rules.EXECUTE


def test_ports_carry_their_direction() -> None:
    """A port to connect to can't be bound, and a port to bind can't be connected to."""
    wanted = Confinement(network=Network.tcp(connect=(443, 80), bind=(80,)))
    assert ruleset_for(wanted, 7).ports == ((80, 3), (443, 2))
    assert ruleset_for(wanted, 3).ports == ()


@pytest.mark.parametrize("abi", range(10))
def test_what_nothing_can_enforce_is_named(abi: int) -> None:
    """What neither this ABI nor a filter can enforce is named."""
    assert ("TCP ports" in uncovered(Confinement(network=Network.tcp(connect=(1,))), abi)) == (abi < 4)
    assert ("signals to other processes" in uncovered(Confinement(subprocess=True), abi)) == (abi < 6)
    assert ("readable paths" in uncovered(SEALED, abi)) == (abi == 0)
    assert ("writable paths" in uncovered(Confinement(writable=("/w",)), abi)) == (abi == 0)
    assert uncovered(confinement_for(SandboxPolicy.STRICT), abi) == ()
