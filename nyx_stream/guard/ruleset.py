"""A policy and a manifest, compiled into one immutable object that decides. Pure; keeps no memory of what it was asked.

A target is allowed when a rule of the policy allows it, no deny rule covers it and, where there is a manifest, the
plugin asked for it. What was approved while it ran counts where no rule of the policy itself allows it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from nyx_core.beneath.text import Flavour, components, fold, is_absolute, normalise, refuse_reason
from nyx_stream.guard.approved import ApprovedRules
from nyx_stream.guard.credential_table import CredentialTable
from nyx_stream.guard.decision import Decision, PathVerdict, RequestVerdict
from nyx_stream.guard.report_only import Endpoint, ReportOnlyRules
from nyx_stream.guard.rules import Rules
from nyx_stream.guard.special_addresses import is_loopback, why_special
from nyx_stream.guard.url_parts import UrlError, UrlParts, read_url
from nyx_stream.policy import ConnectRule, Credential, Mode, PathRule, Places, RequestRule, SandboxPolicy
from nyx_stream.policy.hosts import (
    LONGEST_NAME,
    HostError,
    address_number,
    canonical_address,
    canonical_host,
    is_address,
)
from nyx_stream.policy.path_rule import bind_all, path_key
from nyx_stream.policy.request_rule import METHOD, NEVER_METHODS

if TYPE_CHECKING:  # it brings pydantic
    from nyx_stream.policy.manifest import Manifest

NO_RULE = "no rule allows it"
NOT_ASKED = "no rule of the plugin's manifest asks for it"
_UNRULED, _UNASKED = Decision(False, None, NO_RULE), Decision(False, None, NOT_ASKED)
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class CompiledPolicy:
    """Everything that one guard decides on, made whole before it is put in force."""

    __slots__ = (
        "allowed",
        "approved",
        "asked",
        "credentials",
        "data",
        "denied",
        "flavour",
        "limits",
        "manifest",
        "policy",
        "trial",
    )

    def __init__(self, policy: SandboxPolicy, manifest: "Manifest | None", places: Places, flavour: Flavour) -> None:
        self.policy = policy
        self.manifest = manifest
        self.limits = policy.limits if manifest is None else manifest.bounded(policy.limits)
        self.flavour = flavour
        self.data = places.get("$DATA")
        bound = policy.bind(places)
        self.allowed = Rules(bound.connect, bound.request, bound.paths, flavour)
        self.denied = Rules(bound.denied_connect, bound.denied_request, bound.denied_paths, flavour)
        self.approved = ApprovedRules(bound.approved, flavour) if bound.approved is not None else None
        self.trial = ReportOnlyRules(bound.report, flavour) if bound.report is not None else None
        self.credentials = CredentialTable(policy.credentials) if policy.credentials else None
        self.asked: Rules | None = None
        if manifest is not None:
            self.asked = Rules(manifest.connect, manifest.request, bind_all(manifest.paths, places), flavour)

    def connect(self, host: object, port: object) -> Decision:
        """Decides on a bare connection. Request rules do not allow one: over it, anything could be said."""
        return self._decide_endpoint(host, port, Rules.allows_connection)

    def dial(self, host: object, port: object) -> Decision:
        """Decides whether an origin may be dialled at all, for a bare connection or for some request."""
        return self._decide_endpoint(host, port, Rules.allows_dialling)

    def _decide_endpoint(self, host: object, port: object, allows: Endpoint) -> Decision:
        try:
            name, number = _endpoint(host, port)
        except HostError as error:
            return Decision(False, None, error.reason)
        if (denied := self._denies_host(name, number)) is not None:
            return denied
        asked = self.asked is None or allows(self.asked, name, number) is not None
        rule = allows(self.allowed, name, number)
        decision = _decision(rule, asked)
        if rule is None and asked and self.approved is not None:
            decision = self.approved.endpoint(name, number, allows) or decision
        return decision if self.trial is None or not asked else self.trial.endpoint(decision, name, number, allows)

    def addresses(self, host: object, port: object, addresses: Sequence[object]) -> Decision:
        """Decides on all answers of one look-up: a single bad one refuses the name."""
        decision = self.dial(host, port)
        if not decision.allowed:
            return decision
        name, number = _endpoint(host, port)
        if not addresses:
            return Decision(False, None, "the name has no address")
        for text in addresses:
            try:
                address = canonical_address(_exact(text, "an address"))
            except HostError as error:
                return Decision(False, None, f"the name resolves to no usable address: {error.reason}")
            if (found := self._judge_address(name, number, address)) is not None:
                if not found.allowed:
                    return found
                decision = found  # a rule on trial has something to say about it
        return decision

    def request(self, method: object, url: object) -> RequestVerdict:
        """Decides on a request and returns the canonical parts it was decided on."""
        try:
            parts = read_url(url)
            verb = _method(method)
        except (UrlError, HostError) as error:
            return RequestVerdict(Decision(False, None, str(error)), "")
        decision = self._request(verb, parts)
        credentials: tuple[Credential, ...] = ()
        if self.credentials is not None and decision.allowed:
            credentials = self.credentials.covering((parts.scheme, parts.host, parts.port), verb, parts.path)
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
            if self.data is None:
                return PathVerdict(Decision(False, None, "a relative path is relative to $DATA, and there is none"), "")
            given = f"{self.data}/{path}"
        normal = normalise(given, self.flavour)
        decision, rule = self._path(path_key(normal, self.flavour), wanted)
        if rule is None:
            return PathVerdict(decision, normal)
        return PathVerdict(decision, normal, rule, _below(given, normal, rule.prefix, self.flavour))

    def denies_path(self, canonical: str, *, below: bool = False) -> PathRule | None:
        """Returns a deny rule that covers an absolute, normal path; with `below` also one that lies below it."""
        key = path_key(canonical, self.flavour)
        rule = self.denied.paths.covering(key)
        return self.denied.paths.below(key) if rule is None and below else rule

    def open_zone(self, host: str, port: int) -> str | None:
        """Returns the parent domain of an allowed host if every single label below it is allowed at `port` too.

        The host itself shows that no wildcard rule denies them. A deny rule may name one of them, or a deeper wildcard
        deny what is further below; then, or where an exact rule allowed the host, there is no such zone.
        """
        zone = host.partition(".")[2]
        # A label has 63 characters at most: names in the zone are never too long.
        if "." not in zone or len(zone) > LONGEST_NAME - 64 or canonical_host(host) != host or is_address(host):
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
        if self.approved:  # an approval ends by itself
            return None
        if self.denied.paths.below(folder) is not None:
            return None
        return folder if self._path(folder, "r" if mode == "r" else "rw")[1] is not None else None

    def _path(self, key: str, mode: Mode) -> tuple[Decision, PathRule | None]:
        """Returns the decision on the key of a path, with the rule where it is allowed."""
        denied = self.denied.paths.covering(key)
        if denied is not None:
            return Decision(False, denied.text, f"denied by the rule {denied.text}"), None
        rule = self.allowed.allows_path(key, mode)
        asked = self.asked is None or self.asked.allows_path(key, mode) is not None
        decision = _decision(rule, asked)
        if rule is None and asked and self.approved is not None:
            approved, rule = self.approved.path(key, mode)
            decision = approved or decision
        if self.trial is not None and asked:
            decision, rule = self.trial.path(decision, rule, key, mode)
        if not decision.allowed:
            return self._why_not_path(decision, key, mode), None
        return decision, rule

    def _why_not_path(self, decision: Decision, key: str, mode: Mode) -> Decision:
        readable = self.allowed.paths.covering(key) if mode == "rw" else None
        if readable is None or decision.reason != NO_RULE:
            return decision
        return Decision(False, None, f"{NO_RULE} to write (reading is allowed by {readable.text})")

    def _request(self, method: str, parts: UrlParts) -> Decision:
        if method in NEVER_METHODS:
            return Decision(False, None, f"the method {method} is never allowed")
        if (denied := self._denies_host(parts.host, parts.port)) is not None:
            return denied
        origin = (parts.scheme, parts.host, parts.port)
        deny = self.denied.requests.deny(origin, method, parts.path) if self.policy.denied_request else None
        if deny is not None:
            return Decision(False, deny.text, f"denied by the rule {deny.text}")
        rule = self.allowed.allows_request(origin, method, parts.path)
        asked = self.asked is None or self.asked.allows_request(origin, method, parts.path) is not None
        decision = _decision(rule, asked)
        if rule is None and asked and self.approved is not None:
            decision = self.approved.request(origin, method, parts.path) or decision
        return decision if self.trial is None or not asked else self.trial.request(decision, origin, method, parts.path)

    def _denies_host(self, host: str, port: int) -> Decision | None:
        if not self.policy.denied_connect:
            return None
        rule = self.denied.denies_host(host, port)
        return None if rule is None else Decision(False, rule.text, f"denied by the rule {rule.text}")

    def _judge_address(self, host: str, port: int, address: str) -> Decision | None:
        """Returns why an answer to the look-up of `host` is refused, what a rule on trial says of it, or `None`."""
        version, number = address_number(address)
        rule = self.denied.hosts.match_any_spelling(version, number, port)
        if rule is not None:
            return Decision(False, rule.text, f"{address} is denied by the rule {rule.text}")
        if is_address(host) and address != host:
            return Decision(False, None, f"{address} is not the address {host}")
        refused = None if is_address(host) else self._refuses_special(host, port, address, version, number)
        return refused if self.trial is None else self.trial.address(refused, version, number, address, port)

    def _refuses_special(self, host: str, port: int, address: str, version: int, number: int) -> Decision | None:
        why = why_special(version, number)
        if why is None or self.allowed.lists_address(version, number, address, port) is not None:
            return None
        # What was approved once is for one operation, and a look-up of another name is none that would be counted.
        if self.approved is not None and self.approved.lists_address(version, number, address, port):
            return None
        if host in _LOOPBACK_HOSTS and is_loopback(version, number):
            return None
        return Decision(False, None, f"{host} resolves to {address}, which is {why}; no rule lists that address")


def _endpoint(host: object, port: object) -> tuple[str, int]:
    if type(host) is str and type(port) is int and 0 < port < 65536:
        return canonical_host(host), port
    if type(port) is not int or not 1 <= port <= 65535:
        raise HostError("", "a port is a number from 1 to 65535")
    return canonical_host(_exact(host, "a host")), port


def _exact(text: object, what: str) -> str:
    if type(text) is not str:
        raise HostError("", f"{what} is a str, not {type(text).__name__}")
    return text


def _method(method: object) -> str:
    text = _exact(method, "a method")
    # Before it is raised to upper case: a dotless i becomes the letter I by that.
    if not METHOD.fullmatch(text):
        raise HostError(text, "a method is a token of RFC 9110")
    return text.upper()


def _decision(rule: ConnectRule | RequestRule | PathRule | None, asked: bool) -> Decision:
    if rule is None:
        return _UNRULED
    if not asked:
        return _UNASKED
    return _allowed(rule.text)


@lru_cache(4096)
def _allowed(text: str) -> Decision:
    # Making the value costs more than finding the rule.
    return Decision(True, text, "allowed by the rule")


def _below(given: str, normal: str, prefix: str, flavour: Flavour) -> str:
    """Returns what `given` says after the components of `prefix`; the normal text where it takes another way there."""
    if flavour == "posix" and given is normal:
        # The text is normal as it was given, and the prefix covers it: what follows is the rest.
        return normal[len(normalise(prefix, flavour)) :].lstrip("/") or "."
    separator = "\\" if flavour == "windows" else "/"
    if flavour == "windows":
        given = given.replace("/", "\\")
    wanted = list(components(normalise(prefix, flavour), flavour))
    rest = given
    while wanted:
        name, _, rest = rest.partition(separator)
        if name in ("", "."):
            if not rest and not name:
                break
            continue
        if fold(name, flavour) != fold(wanted[0], flavour):
            break
        wanted.pop(0)
    if wanted:
        names = components(normal, flavour)[len(components(normalise(prefix, flavour), flavour)) :]
        return separator.join(names) or "."
    return rest.lstrip(separator) or "."
