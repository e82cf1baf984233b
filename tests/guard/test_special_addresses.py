"""The table of special addresses, compared with its source list and with `ipaddress`."""

import ipaddress
import re
from pathlib import Path

import pytest

from nyx_stream.guard.special_addresses import why_special
from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy

LIST = (Path(__file__).parents[1] / "cases" / "special-addresses.md").read_text(encoding="utf-8")
NETWORK = re.compile(r"(?<![\w:./-])((?:\d+\.){3}\d+(?:/\d+)?|[0-9a-f:]*::[0-9a-f:]*(?:/\d+)?)(?![\w:])")
GLOBAL = {"192.0.0.9", "192.0.0.10", "2000::/3"}
JUDGED_INSIDE = {"::ffff:0:0/96", "64:ff9b::/96"}
LISTED = ["::", *sorted({match[0] for match in NETWORK.finditer(LIST)} - {"::"} - GLOBAL - JUDGED_INSIDE)]


def numbers(text: str) -> list[tuple[int, int]]:
    network = ipaddress.ip_network(text)
    return [(network.version, int(network[0])), (network.version, int(network[-1]))]


@pytest.mark.parametrize("text", LISTED)
def test_every_listed_network_is_special_at_both_ends(text: str) -> None:
    """First and last address of each listed network are special."""
    if text == "2001::/23":
        assert why_special(*numbers(text)[0])
        return
    assert all(why_special(*number) for number in numbers(text))


def test_the_list_was_read() -> None:
    """The pattern finds the networks of the list."""
    assert len(LISTED) > 35


@pytest.mark.parametrize("text", ["192.0.0.9", "192.0.0.10", "8.8.8.8", "2606:2800::1", "2001:1::1", "2001:20::1"])
def test_global_addresses_are_not_special(text: str) -> None:
    """Public addresses and the registries' global exceptions are globally reachable."""
    assert why_special(*numbers(text)[0]) is None


@pytest.mark.parametrize(("text", "special"), [("64:ff9b::a00:1", True), ("64:ff9b::808:808", False)])
def test_a_nat64_address_has_the_kind_of_its_ipv4_address(text: str, special: bool) -> None:
    """A NAT64 address is special if its embedded IPv4 address is."""
    assert (why_special(*numbers(text)[0]) is not None) == special


@pytest.mark.parametrize("text", LISTED)
def test_an_address_that_is_special_to_ipaddress_is_special_here(text: str) -> None:
    """If `ipaddress` of the running Python says that an address is not global, this table says so too."""
    for version, number in numbers(text):
        address = ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)
        if not address.is_global:
            assert why_special(version, number)


@pytest.mark.parametrize("spelling", ["::ffff:10.0.0.1", "::ffff:a00:1", "10.0.0.1"])
def test_every_spelling_of_an_address_is_one_address(spelling: str) -> None:
    """A network rule matches every spelling of an address."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("10.0.0.0/8"))
    assert guard.decide_connect(spelling, 80).allowed


@pytest.mark.parametrize("zone", ["fe80::1%eth0", "::1%lo", "2606:2800::1%25"])
def test_a_zone_id_is_refused(zone: str) -> None:
    """An address with a zone id is refused as a host and as a DNS answer."""
    guard = SandboxGuard(SandboxPolicy.locked_down().allow_connect_host("a.example.com", "[fe80::]/10", "::1"))
    assert not guard.decide_connect(zone, 80).allowed
    assert not guard.decide_addresses("a.example.com", 80, [zone]).allowed
