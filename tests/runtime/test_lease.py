"""A lease by itself: its end, its time, its budgets, and the leases below it."""

import asyncio
import contextvars

import pytest

from nyx_stream.attribution import as_plugin, running
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.errors import Revoked
from nyx_stream.isolation.backend import CAPABILITIES
from nyx_stream.policy.limits import TERMS, parse_terms


def _leased(capability: str = "http", **terms: object) -> tuple[Lease, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    lease = Lease("p", capability, told=lambda happening, reason: told.append((happening, reason)))
    lease.limit(parse_terms(capability, terms))
    return lease, told


async def _end_of(lease: Lease) -> None:
    ended = asyncio.Event()
    lease.hold(ended.set)
    await asyncio.wait_for(ended.wait(), 30)


def test_a_lease_without_terms_needs_no_loop_and_counts_nothing() -> None:
    """It is what a capability is given where no host is: only revoke ends it."""
    lease = Lease("p", "http")
    lease.check()
    lease.spend("bytes_in", 10**12)
    assert not lease.ended
    assert (lease.status().reason, lease.status().left) == (None, {})
    lease.revoke("incident 42")
    lease.revoke("later")
    with pytest.raises(Revoked, match="revoked: incident 42"):
        lease.check()
    assert lease.status().reason == "revoked: incident 42"


async def test_it_expires_by_itself_and_tells_once() -> None:
    """Everything held is ended, with a reason that says so."""
    lease, told = _leased(ttl="20ms")
    await _end_of(lease)
    with pytest.raises(Revoked, match=r"expired: its 0\.02s are over"):
        lease.check()
    assert told == [("expire", "expired: its 0.02s are over")]


async def test_the_clock_counts_not_the_loop() -> None:
    """A plugin that keeps the loop from its timers uses nothing after its time."""
    lease, told = _leased(ttl="1ms")
    while not lease.ended:
        pass
    with pytest.raises(Revoked, match="expired"):
        lease.check()
    with pytest.raises(Revoked, match="expired"):
        lease.hold(lambda: None)
    assert told == []


async def test_a_new_ttl_counts_from_now_and_none_lifts_it() -> None:
    """The host prolongs a lease before it ends; an ended one does not come back."""
    lease, _ = _leased(ttl="1h")
    lease.limit({"ttl": None})
    assert lease.status().left == {}
    lease.limit({"ttl": 3600.0})
    assert 0 < lease.status().left["ttl"] <= 3600
    lease.limit({"ttl": 0.001})
    await _end_of(lease)
    with pytest.raises(Revoked):
        lease.limit({"ttl": 3600.0})


def test_a_budget_is_used_to_the_last_and_not_beyond() -> None:
    """What does not fit uses the rest up; the lease lives on, and a budget set anew counts from the beginning."""
    lease, told = _leased(requests=2, bytes_out=10)
    lease.spend("requests")
    lease.spend("bytes_out", 9)
    lease.spend("requests")
    for _ in range(2):
        with pytest.raises(Spent, match="used up: requests 2"):
            lease.spend("requests")
    with pytest.raises(Spent, match="used up: bytes_out 10B"):
        lease.spend("bytes_out", 2)
    with pytest.raises(Spent):
        lease.spend("bytes_out", 1)
    assert told == [("spend", "used up: requests 2"), ("spend", "used up: bytes_out 10B")]
    assert not lease.ended
    lease.limit({"requests": 1})
    lease.spend("requests")
    assert lease.status().left == {"requests": 0, "bytes_out": 0}
    lease.limit({"requests": None, "bytes_out": None})
    lease.spend("requests", 100)


async def test_seconds_of_use_run_only_while_something_is_under_way() -> None:
    """Uses that overlap count once; when the seconds are over, the lease ends."""
    lease, told = _leased(seconds="30ms")
    idle = lease.status().left["seconds"]
    assert idle == lease.status().left["seconds"] == 0.03
    first = lease.hold(lambda: None, busy=True)
    second = lease.hold(lambda: None, busy=True)
    first()
    first()
    second()
    rest = lease.status().left["seconds"]
    assert rest < 0.03
    assert rest == lease.status().left["seconds"]
    ended = asyncio.Event()
    lease.hold(ended.set, busy=True)
    await asyncio.wait_for(ended.wait(), 30)
    assert lease.status().reason == "used up: 0.03s of use"
    assert told == [("spend", "used up: 0.03s of use")]


async def test_seconds_set_during_use_count_that_use() -> None:
    """A stream that was open before does not escape."""
    lease = Lease("p", "http")
    ended = asyncio.Event()
    lease.hold(ended.set, busy=True)
    lease.limit({"seconds": 0.001})
    await asyncio.wait_for(ended.wait(), 30)
    assert lease.status().reason == "used up: 0.001s of use"


def test_a_lease_below_ends_with_the_one_above_and_not_the_reverse() -> None:
    """Also the one below that one; each with the reason of the one that ended."""
    above = Lease("p", "http")
    child, sibling = above.child(), above.child()
    grandchild = child.child()
    ended: list[str] = []
    grandchild.hold(lambda: ended.append("grandchild"))
    child.revoke("closed")
    assert ended == ["grandchild"]
    assert not above.ended
    assert not sibling.ended
    above.revoke("incident 42")
    with pytest.raises(Revoked, match="incident 42"):
        sibling.check()
    assert above.child().ended
    assert child.status().reason == "revoked: closed"


async def test_a_lease_below_has_no_more_time_than_the_one_above() -> None:
    """Whichever is set first, and whichever is shorter."""
    above = Lease("p", "http")
    child = above.child({"ttl": 3600.0})
    above.limit({"ttl": 0.001})
    while not child.ended:
        pass
    assert child.reason == "expired: its 0.001s are over"
    await _end_of(Lease("p", "http").child({"ttl": 0.001}))


def test_what_is_spent_below_is_spent_above() -> None:
    """And what one of them refuses, none of them is charged for."""
    above, told = _leased(requests=3)
    one, two = above.child({"requests": 1}), above.child()
    one.spend("requests")
    with pytest.raises(Spent, match="requests 1"):
        one.spend("requests")
    assert above.status().left == {"requests": 2}
    two.spend("requests", 2)
    with pytest.raises(Spent, match="requests 3"):
        two.spend("requests")
    assert [happening for happening, _ in told] == ["spend"]


async def test_use_below_is_use_above_until_the_lease_below_ends() -> None:
    """A narrowed lease that ends in the middle of a request does not leave the clock above running."""
    above, _ = _leased(seconds="1h")
    child = above.child()
    child.hold(lambda: None, busy=True)
    child.revoke("closed")
    rest = above.status().left["seconds"]
    assert rest < 3600
    assert rest == above.status().left["seconds"]


def test_what_ends_is_ended_by_the_host() -> None:
    """Closing a socket for a plugin that closes its lease is no system call of the plugin's."""
    lease = Lease("p", "http")
    seen: list[str | None] = []
    lease.hold(lambda: seen.append(running.get()))

    def as_the_plugin() -> None:
        with as_plugin("p"):
            lease.revoke("closed")

    contextvars.copy_context().run(as_the_plugin)
    assert seen == [None]


@pytest.mark.parametrize(
    ("capability", "terms", "message"),
    [
        ("http", {"opens": 1}, "opens: a lease of http has no such term; it has ttl, requests, bytes_in"),
        ("files", {"bytes_in": 1}, "a lease of files has no such term; it has ttl, opens"),
        ("http", {"ttl": "soon"}, "ttl: 'soon' isn't a duration"),
        ("http", {"requests": 0}, "requests: a count must be greater than zero"),
        ("http", {"requests": True}, "requests: True isn't a whole number"),
        ("fire", {}, "no capability 'fire'; there are http, files"),
    ],
)
def test_wrong_terms_are_told(capability: str, terms: dict[str, object], message: str) -> None:
    """With the name of the term and what it should be."""
    with pytest.raises(ValueError, match=message):
        parse_terms(capability, terms)


def test_every_capability_of_a_level_has_its_terms() -> None:
    """And there is none for a capability that no level has."""
    assert set(TERMS) == set(CAPABILITIES)


def test_what_fails_to_end_keeps_nothing_else_open():
    """Below it, beside it, and its own clock: all end, and the fault is told."""
    ended = []

    def fail():
        raise ZeroDivisionError

    lease = Lease("p", "http")
    children = [lease.child() for _ in range(3)]
    for number, child in enumerate(children):
        child.hold(lambda number=number: ended.append(number))
        lease.hold(fail)
        lease.hold(lambda number=number: ended.append(-number))
    with pytest.raises(ZeroDivisionError):
        lease.revoke("over")
    assert sorted(ended) == [-2, -1, 0, 0, 1, 2]
