"""One lease: its end, its time, its budgets, and its children."""

import asyncio
import contextvars

import pytest

from nyx_stream.attribution import as_plugin, running
from nyx_stream.capabilities.lease import Lease, Spent
from nyx_stream.errors import Revoked
from nyx_stream.policy.limits import parse_terms


def _leased(capability: str = "http", **terms: object) -> tuple[Lease, list[tuple[str, str]]]:
    events: list[tuple[str, str]] = []
    lease = Lease("p", capability, on_event=lambda event, reason: events.append((event, reason)))
    lease.limit(parse_terms(capability, terms))
    return lease, events


async def _end_of(lease: Lease) -> None:
    ended = asyncio.Event()
    lease.hold(ended.set)
    await asyncio.wait_for(ended.wait(), 30)


def test_a_lease_without_terms_needs_no_loop_and_counts_nothing() -> None:
    """A capability outside of a host gets such a lease; only `revoke` ends it."""
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


async def test_it_expires_and_reports_it_once() -> None:
    """Everything that is held ends, and the reason says why."""
    lease, events = _leased(ttl="20ms")
    await _end_of(lease)
    with pytest.raises(Revoked, match=r"expired after 0\.02s"):
        lease.check()
    assert events == [("expire", "expired after 0.02s")]


async def test_a_blocked_event_loop_does_not_prolong_a_lease() -> None:
    """A plugin that keeps the loop's timers from running can't use the capability after its time."""
    lease, events = _leased(ttl="1ms")
    while not lease.ended:
        pass
    with pytest.raises(Revoked, match="expired"):
        lease.check()
    with pytest.raises(Revoked, match="expired"):
        lease.hold(lambda: None)
    assert events == []


async def test_a_new_ttl_counts_from_now_and_none_removes_it() -> None:
    """The host can prolong a lease before it ends, and can't renew it afterwards."""
    lease, _ = _leased(ttl="1h")
    lease.limit({"ttl": None})
    assert lease.status().left == {}
    lease.limit({"ttl": 3600.0})
    assert 0 < lease.status().left["ttl"] <= 3600
    lease.limit({"ttl": 0.001})
    await _end_of(lease)
    with pytest.raises(Revoked):
        lease.limit({"ttl": 3600.0})


def test_a_budget_can_be_used_completely_and_not_beyond() -> None:
    """An amount that does not fit uses the rest up. The lease goes on, and a budget that is set anew starts in full."""
    lease, events = _leased(requests=2, bytes_out=10)
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
    assert events == [("spend", "used up: requests 2"), ("spend", "used up: bytes_out 10B")]
    assert not lease.ended
    lease.limit({"requests": 1})
    lease.spend("requests")
    assert lease.status().left == {"requests": 0, "bytes_out": 0}
    lease.limit({"requests": None, "bytes_out": None})
    lease.spend("requests", 100)


async def test_seconds_of_use_count_only_while_something_is_in_use() -> None:
    """Uses that overlap count once. The lease ends when the seconds are used up."""
    lease, events = _leased(seconds="30ms")
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
    assert events == [("spend", "used up: 0.03s of use")]


async def test_seconds_set_during_use_count_that_use() -> None:
    """Also for a stream that was open before."""
    lease = Lease("p", "http")
    ended = asyncio.Event()
    lease.hold(ended.set, busy=True)
    lease.limit({"seconds": 0.001})
    await asyncio.wait_for(ended.wait(), 30)
    assert lease.status().reason == "used up: 0.001s of use"


def test_a_child_ends_with_its_parent_and_not_the_reverse() -> None:
    """So does its own child, and each has the reason of the lease that ended."""
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


async def test_a_child_has_no_more_time_than_its_parent() -> None:
    """The two times can be set in any order."""
    above = Lease("p", "http")
    child = above.child({"ttl": 3600.0})
    above.limit({"ttl": 0.001})
    while not child.ended:
        pass
    assert child.reason == "expired after 0.001s"
    await _end_of(Lease("p", "http").child({"ttl": 0.001}))


def test_what_a_child_spends_its_parent_spends() -> None:
    """An amount that one of them refuses is taken from neither."""
    above, events = _leased(requests=3)
    one, two = above.child({"requests": 1}), above.child()
    one.spend("requests")
    with pytest.raises(Spent, match="requests 1"):
        one.spend("requests")
    assert above.status().left == {"requests": 2}
    two.spend("requests", 2)
    with pytest.raises(Spent, match="requests 3"):
        two.spend("requests")
    assert [event for event, _ in events] == ["spend"]


async def test_the_use_of_a_child_counts_for_its_parent_until_the_child_ends() -> None:
    """A child that ends in the middle of a request stops the parent's timer."""
    above, _ = _leased(seconds="1h")
    child = above.child()
    child.hold(lambda: None, busy=True)
    child.revoke("closed")
    rest = above.status().left["seconds"]
    assert rest < 3600
    assert rest == above.status().left["seconds"]


def test_callbacks_run_as_the_host() -> None:
    """When a plugin closes its lease, the system call that closes a socket is attributed to the host."""
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
def test_wrong_terms_are_refused(capability: str, terms: dict[str, object], message: str) -> None:
    """The error names the term and the expected value."""
    with pytest.raises(ValueError, match=message):
        parse_terms(capability, terms)


def test_a_callback_that_raises_keeps_nothing_else_open():
    """The children, the other callbacks and the timer end too, and the error is raised."""
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
