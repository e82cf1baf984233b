"""A policy and a manifest, compiled into one immutable object that decides.

A target is allowed if no deny rule covers it, an allow rule of the policy does and, where there is a manifest, the
plugin asked for it. If no rule of the policy allows it, an approved rule may. Report-only rules come last: they turn
a denial into an allowed decision, or mark an allowed one, and the reason says so. They never override an enforced
deny rule, and never allow what the manifest doesn't ask for.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from nyx_core.beneath.text import Flavour, is_absolute, normalise, refuse_reason
from nyx_stream.guard.decision import REPORT_ONLY, ApprovedDecision, Decision, PathVerdict, RequestVerdict
from nyx_stream.guard.rule_tables import RequestTable, RuleTables, path_below
from nyx_stream.guard.special_addresses import is_loopback, why_special
from nyx_stream.guard.url_parts import UrlError, read_url
from nyx_stream.policy import Credential, Mode, PathRule, Places, SandboxPolicy
from nyx_stream.policy.approval import ApprovedSource, Ticket
from nyx_stream.policy.hosts import (
    MAX_NAME_LENGTH,
    HostError,
    address_number,
    canonical_address,
    canonical_host,
    is_address,
)
from nyx_stream.policy.rules import METHOD, NEVER_METHODS, Rule, bind_all, path_key

if TYPE_CHECKING:
    from nyx_stream.policy.manifest import Manifest

_Target = TypeVar("_Target")
_Found = TypeVar("_Found", bound=Rule)

NO_RULE = Decision(False, None, "no rule allows it")
NOT_ASKED = Decision(False, None, "no rule of the plugin's manifest asks for it")
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class CompiledPolicy:
    """Everything that one guard decides on, built completely before it is put in force."""

    __slots__ = (
        "_approved",
        "_credentials",
        "_data",
        "_report_only",
        "allowed",
        "asked",
        "denied",
        "flavour",
        "limits",
        "manifest",
        "policy",
    )

    def __init__(self, policy: SandboxPolicy, manifest: "Manifest | None", places: Places, flavour: Flavour) -> None:
        self.policy = policy
        self.manifest = manifest
        self.limits = policy.limits if manifest is None else manifest.bounded(policy.limits)
        self.flavour = flavour
        bound = policy.bind(places)
        self.allowed, self.denied = _both_tables(bound, flavour)
        self.asked: RuleTables | None = None
        if manifest is not None:
            self.asked = RuleTables(manifest.connect, manifest.request, bind_all(manifest.paths, places), flavour)
        self._approved = () if bound.approved is None else _tables_by_rule(bound.approved, flavour)
        self._report_only = None if bound.report is None else _both_tables(bound.report, flavour)
        # The rule of a credential matches as an allow rule does.
        self._credentials = [(item, RequestTable((item.rule,))) for item in policy.credentials]
        self._data = places.get("$DATA")

    def connect(self, host: object, port: object) -> Decision:
        """Decides on a bare connection. Request rules don't allow one: it could carry any protocol."""
        try:
            target = _endpoint(host, port)
        except HostError as error:
            return Decision(False, None, error.reason)
        return self._decide(RuleTables.allows_connection, RuleTables.denies_host, target)[0]

    def dial(self, host: object, port: object) -> Decision:
        """Decides whether an origin may be dialled, for a bare connection or for some request."""
        try:
            target = _endpoint(host, port)
        except HostError as error:
            return Decision(False, None, error.reason)
        return self._decide(RuleTables.allows_dialling, RuleTables.denies_host, target)[0]

    def addresses(self, host: object, port: object, addresses: Sequence[object]) -> Decision:
        """Decides on all answers of one look-up. A single refused address refuses the name."""
        try:
            name, number = _endpoint(host, port)
        except HostError as error:
            return Decision(False, None, error.reason)
        decision, _ = self._decide(RuleTables.allows_dialling, RuleTables.denies_host, (name, number))
        if not decision.allowed:
            return decision
        if not addresses:
            return Decision(False, None, "the name has no address")
        for text in addresses:
            try:
                address = canonical_address(_exact(text, "an address"))
            except HostError as error:
                return Decision(False, None, f"the name resolves to an unusable address: {error.reason}")
            if (found := self._decide_address(name, number, address)) is not None:
                if not found.allowed:
                    return found
                decision = found  # a would-be denial
        return decision

    def request(self, method: object, url: object) -> RequestVerdict:
        """Decides on a request and returns the canonical parts it was decided on."""
        try:
            parts = read_url(url)
            verb = _method(method)
        except (UrlError, HostError) as error:
            return RequestVerdict(Decision(False, None, str(error)), "")
        origin = (parts.scheme, parts.host, parts.port)
        credentials: tuple[Credential, ...] = ()
        if verb in NEVER_METHODS:
            decision = Decision(False, None, f"the method {verb} is never allowed")
        else:
            allows, denies = RuleTables.allows_request, RuleTables.denies_request
            decision = self._decide(allows, denies, (origin, verb, parts.path))[0]
        if self._credentials and decision.allowed:
            by_header: dict[str, Credential] = {}  # at most one for each header: the first in the policy
            for item, table in self._credentials:
                if table.allow(origin, verb, parts.path) is not None:
                    by_header.setdefault(item.header.lower(), item)
            credentials = tuple(by_header.values())
        return RequestVerdict(decision, verb, parts.scheme, parts.host, parts.port, parts.target, credentials)

    def path(self, path: object, mode: object) -> PathVerdict:
        """Decides on a path by its text."""
        if type(path) is not str or mode not in ("r", "rw"):
            return PathVerdict(Decision(False, None, 'a path is a str, and a mode "r" or "rw"'), "")
        wanted: Mode = "r" if mode == "r" else "rw"
        reason = refuse_reason(path, self.flavour)
        if reason is not None:
            return PathVerdict(Decision(False, None, reason), "")
        given = path
        if not is_absolute(path, self.flavour):
            if self._data is None:
                return PathVerdict(Decision(False, None, "a relative path needs $DATA, which isn't set"), "")
            given = f"{self._data}/{path}"
        normal = normalise(given, self.flavour)
        decision, rule = self._decide_path(path_key(normal, self.flavour), wanted)
        if rule is None:
            return PathVerdict(decision, normal)
        return PathVerdict(decision, normal, rule, path_below(given, normal, rule.prefix, self.flavour))

    def denies_path(self, canonical: str, *, below: bool = False) -> PathRule | None:
        """Returns a deny rule that covers an absolute, normal path. With `below`, also one for a path below it."""
        key = path_key(canonical, self.flavour)
        rule = self.denied.paths.covering(key)
        return self.denied.paths.below(key) if rule is None and below else rule

    def open_zone(self, host: str, port: int) -> str | None:
        """Returns the parent domain of an allowed host if every single label below it is allowed at `port` too.

        That needs a wildcard in the policy and in the manifest. No deny wildcard can cover the zone, because it would
        deny the host too; a deny rule that names another host directly below the zone prevents it.
        """
        zone = host.partition(".")[2]
        # With a label of 63 characters, a name in the zone must not exceed the length of a name.
        if "." not in zone or len(zone) > MAX_NAME_LENGTH - 64 or canonical_host(host) != host or is_address(host):
            return None
        for side in (self.allowed, self.asked):
            if side is not None and side.hosts.match_wildcard(host, port) is None:
                return None
        return None if self.denied.hosts.names_directly_below(zone) else zone

    def open_folder(self, path: str, mode: str) -> str | None:
        """Returns the folder of an allowed path if every name in it is allowed too, by any rule that covers it."""
        folder = path.rpartition("/")[0]
        if self.flavour != "posix" or not folder or not path.isascii() or normalise(path, self.flavour) != path:
            return None
        if self._approved:  # an approval can end without a change of policy
            return None
        if self.denied.paths.below(folder) is not None:
            return None
        return folder if self._decide_path(folder, "r" if mode == "r" else "rw")[1] is not None else None

    def _decide(
        self,
        allows: Callable[[RuleTables, _Target], _Found | None],
        denies: Callable[[RuleTables, _Target], Rule | None],
        target: _Target,
    ) -> tuple[Decision, _Found | None]:
        """Returns the decision on a target and, if an allow rule covers it, that rule."""
        denied = denies(self.denied, target)
        if denied is not None:
            return _denied(denied), None
        rule = allows(self.allowed, target)
        if self.asked is not None and allows(self.asked, target) is None:
            return NO_RULE if rule is None else NOT_ASKED, None
        decision = NO_RULE if rule is None else _allowed(rule.text)
        if rule is None and self._approved:
            decision, rule = self._decide_approved(allows, target)
        if self._report_only is None:
            return decision, rule
        would_allow, would_deny = self._report_only
        if not decision.allowed:
            allowing = allows(would_allow, target)
            return (decision, None) if allowing is None else (_would_deny(decision, allowing), allowing)
        denying = denies(would_deny, target)
        return (decision if denying is None else _would_deny(decision, denying)), rule

    def _decide_approved(
        self, allows: Callable[[RuleTables, _Target], _Found | None], target: _Target
    ) -> tuple[Decision, _Found | None]:
        """Returns the decision of the first valid approval. If all have ended, returns one whose `use` says so."""
        rules = [rule for tables in self._approved if (rule := allows(tables, target)) is not None]
        if not rules:
            return NO_RULE, None
        rule = next((rule for rule in rules if _ticket(rule).invalid is None), rules[0])
        return ApprovedDecision(True, rule.text, f"allowed by the rule, {rule.source}", _ticket(rule)), rule

    def _decide_path(self, key: str, mode: Mode) -> tuple[Decision, PathRule | None]:
        decision, rule = self._decide(RuleTables.allows_path, RuleTables.denies_path, (key, mode))
        if decision is NO_RULE and mode == "rw" and (readable := self.allowed.paths.covering(key)) is not None:
            reason = f"{NO_RULE.reason} to write (reading is allowed by {readable.text})"
            return Decision(False, None, reason), None
        return decision, rule

    def _decide_address(self, host: str, port: int, address: str) -> Decision | None:
        """Returns a denial or a would-be denial of one answer to the look-up of `host`, or `None`."""
        version, number = address_number(address)
        rule = self.denied.hosts.match_any_spelling(version, number, port)
        if rule is not None:
            return Decision(False, rule.text, f"{address} is denied by the rule {rule.text}")
        if is_address(host) and address != host:
            return Decision(False, None, f"{address} is not the address {host}")
        denial = None if is_address(host) else self._deny_special(host, port, address, version, number)
        if self._report_only is None:
            return denial
        would_allow, would_deny = self._report_only
        if denial is not None:
            allowing = would_allow.lists_address(version, number, address, port)
            return denial if allowing is None else _would_deny(denial, allowing)
        denying = would_deny.hosts.match_any_spelling(version, number, port)
        return None if denying is None else _would_deny(Decision(True, None, ""), denying)

    def _deny_special(self, host: str, port: int, address: str, version: int, number: int) -> Decision | None:
        why = why_special(version, number)
        if why is None or self.allowed.lists_address(version, number, address, port) is not None:
            return None
        if self._approved and self._approval_lists(version, number, address, port):
            return None
        if host in _LOOPBACK_HOSTS and is_loopback(version, number):
            return None
        return Decision(False, None, f"{host} resolves to {address}, which is {why}; no rule lists that address")

    def _approval_lists(self, version: int, number: int, address: str, port: int) -> bool:
        """Returns whether a valid approval names an address or its network.

        An approval for one operation doesn't count: a look-up of another name would not use it up.
        """
        found = (tables.lists_address(version, number, address, port) for tables in self._approved)
        tickets = [_ticket(rule) for rule in found if rule is not None]
        return any(not ticket.once and ticket.invalid is None for ticket in tickets)


def _both_tables(policy: SandboxPolicy, flavour: Flavour) -> tuple[RuleTables, RuleTables]:
    """Returns the allow rules and the deny rules of a policy."""
    return (
        RuleTables(policy.connect, policy.request, policy.paths, flavour),
        RuleTables(policy.denied_connect, policy.denied_request, policy.denied_paths, flavour),
    )


def _tables_by_rule(policy: SandboxPolicy, flavour: Flavour) -> tuple[RuleTables, ...]:
    """Compiles each rule of a policy separately, so that an approval that has ended never hides another."""
    return (
        *(RuleTables([rule], [], [], flavour) for rule in policy.connect),
        *(RuleTables([], [rule], [], flavour) for rule in policy.request),
        *(RuleTables([], [], [rule], flavour) for rule in policy.paths),
    )


def _denied(rule: Rule) -> Decision:
    return Decision(False, rule.text, f"denied by the rule {rule.text}")


@lru_cache(4096)
def _allowed(text: str) -> Decision:
    # Making the value costs more than finding the rule.
    return Decision(True, text, "allowed by the rule")


def _ticket(rule: Rule) -> Ticket:
    if type(rule.source) is not ApprovedSource:
        raise TypeError(f"the rule {rule.text} is among the approved rules, but was not approved")
    return rule.source.ticket


def _would_deny(decision: Decision, rule: Rule) -> Decision:
    """Returns the allowed decision that reports a denial, for a report-only rule."""
    if not decision.allowed:
        return Decision(True, rule.text, f"{REPORT_ONLY}{decision.reason}")
    # `replace` keeps the ticket of an approved decision.
    return replace(decision, rule=rule.text, reason=f"{REPORT_ONLY}denied by the rule {rule.text}")


def _endpoint(host: object, port: object) -> tuple[str, int]:
    if type(port) is not int or not 1 <= port <= 65535:
        raise HostError("", "a port is a number from 1 to 65535")
    return canonical_host(host if type(host) is str else _exact(host, "a host")), port


def _exact(text: object, what: str) -> str:
    if type(text) is not str:
        raise HostError("", f"{what} is a str, not {type(text).__name__}")
    return text


def _method(method: object) -> str:
    text = _exact(method, "a method")
    # Checked before upper-casing, which turns a dotless i into the letter I.
    if not METHOD.fullmatch(text):
        raise HostError(text, "a method is a token of RFC 9110")
    return text.upper()
