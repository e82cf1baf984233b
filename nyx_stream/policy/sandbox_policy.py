"""What an operator grants: a frozen value, built by calls that return a new one, or read from a file."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, TypeAlias, TypeVar

from nyx_stream.errors import PolicyError, Problem
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.credential import Credential
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.path_rule import PathRule, Places, bind_all
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import RuleError, parse_env
from nyx_stream.policy.terms import LeaseTerms

_Rule = TypeVar("_Rule")

Degrade: TypeAlias = Literal["refuse", "allow"]


@dataclass(frozen=True)
class SandboxPolicy:
    """Rules and limits. Empty grants nothing; a deny rule beats every allow rule; there is no bypass.

    `degrade` says what becomes of a plugin whose process cannot be sealed completely on this machine: with `"refuse"`
    it is not loaded, with `"allow"` it runs with what can be had, and audit and report say what is missing.

    Every `allow_…` and `deny_…` takes one or more rules, every one is parsed, and all faults are reported together in
    one `PolicyError`.
    """

    connect: tuple[ConnectRule, ...] = ()
    denied_connect: tuple[ConnectRule, ...] = ()
    request: tuple[RequestRule, ...] = ()
    denied_request: tuple[RequestRule, ...] = ()
    paths: tuple[PathRule, ...] = ()
    denied_paths: tuple[PathRule, ...] = ()
    env: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    leases: tuple[LeaseTerms, ...] = ()
    degrade: Degrade = "refuse"
    credentials: tuple[Credential, ...] = ()
    report: "SandboxPolicy | None" = None
    on_request: "SandboxPolicy | None" = None
    approved: "SandboxPolicy | None" = None
    """What was approved while the plugin ran: the host's to fill in, and part of no file."""

    def __post_init__(self) -> None:
        if (rules := self.report) is not None and rules != SandboxPolicy(*_rules_of(rules)):
            raise PolicyError([Problem("report-only rules are about connections, requests and paths alone")])
        if (rules := self.on_request) is not None and rules != _allowing(rules):
            raise PolicyError([Problem("rules on request allow connections, requests and paths, and nothing else")])
        shown = [item for item in self.credentials if item.variable is not None and item.variable in self.env]
        if shown:
            raise PolicyError(
                [
                    Problem(f"{item.variable} holds a credential: a plugin cannot be allowed to read it")
                    for item in shown
                ]
            )

    @classmethod
    def locked_down(cls) -> Self:
        """Returns the policy that grants nothing."""
        return cls()

    def allow_connect_host(self, *rules: str) -> Self:
        """Adds connect rules: `"api.example.com"`, `"*.example.com:443"`, `"10.0.0.0/8"`, `"[::1]:8080"`."""
        return replace(self, connect=self.connect + _parse("allow_connect_host", ConnectRule.parse, rules))

    def deny_connect_host(self, *rules: str) -> Self:
        """Adds connect rules that forbid, for connections and requests alike."""
        return replace(self, denied_connect=self.denied_connect + _parse("deny_connect_host", ConnectRule.parse, rules))

    def allow_request(self, *rules: str) -> Self:
        """Adds request rules: `"GET,HEAD https://api.met.no/v1/**"`, `"https://example.com"`."""
        return replace(self, request=self.request + _parse("allow_request", RequestRule.parse, rules))

    def deny_request(self, *rules: str) -> Self:
        """Adds request rules that forbid. Without methods a rule forbids every method."""
        return replace(self, denied_request=self.denied_request + _parse("deny_request", RequestRule.parse, rules))

    def allow_path_prefix(self, *prefixes: str | os.PathLike[str], mode: str = "rw") -> Self:
        """Adds path prefixes with one mode, `"r"` or `"rw"`: absolute, or below `$DATA`, `$PLUGIN` or `./`."""
        rules = _parse(
            "allow_path_prefix", lambda text: PathRule.parse(text, mode), [os.fspath(prefix) for prefix in prefixes]
        )
        # Readable before writable, as in a file: then a policy equals the one that its file is read as.
        return replace(self, paths=tuple(sorted(self.paths + rules, key=lambda rule: rule.mode)))

    def deny_path_prefix(self, *prefixes: str | os.PathLike[str]) -> Self:
        """Adds path prefixes that forbid every operation on them and below them."""
        rules = _parse(
            "deny_path_prefix", lambda text: PathRule.parse(text, "rw"), [os.fspath(prefix) for prefix in prefixes]
        )
        return replace(self, denied_paths=self.denied_paths + rules)

    def allow_env(self, *names: str) -> Self:
        """Adds names of environment variables that the plugin may read."""
        return replace(self, env=self.env + _parse("allow_env", parse_env, names))

    def allow_degraded(self) -> Self:
        """Lets a plugin run in a process that cannot be sealed completely."""
        return replace(self, degrade="allow")

    def bind_credential(self, rule: str, *, header: str, value: str, prefix: str = "") -> Self:
        """Adds a credential that the host puts into the requests that `rule` covers; no request is granted by it.

        Args:
            rule: a request rule: `"https://api.example.com/v1/**"`.
            header: the header's name; one that the plugin sends is replaced.
            value: where the secret is: `"env:NAME"` or `"file:/PATH"`.
            prefix: what is sent before the secret: `"Bearer "`.
        """
        parsed = _parse("bind_credential", RequestRule.parse, [rule])[0]
        try:
            added = Credential.of(parsed, header, value, prefix)
        except RuleError as error:
            raise PolicyError([Problem(error.reason, where="bind_credential")]) from None
        return replace(self, credentials=(*self.credentials, added))

    def report_only(self, rules: "SandboxPolicy") -> Self:
        """Puts rules on trial beside the enforced ones, in the place of those on trial before.

        What only an allow rule of `rules` allows, and what a deny rule of `rules` would deny, is done, and audited as a
        would-be denial. Enforced deny rules hold. `rules` has neither limits, variables nor credentials.
        """
        return replace(self, report=rules)

    def allow_on_request(self, rules: "SandboxPolicy") -> Self:
        """Says what a plugin gets as soon as it asks, without a person, in the place of what was said before.

        That is: what its manifest has as optional and an allow rule of `rules` covers. `rules` has nothing else.
        """
        return replace(self, on_request=rules if rules != SandboxPolicy() else None)

    def merged(self) -> Self:
        """Returns the policy with what was approved among its own rules."""
        more = self.approved
        if more is None:
            return self
        return replace(
            self,
            connect=self.connect + more.connect,
            request=self.request + more.request,
            paths=self.paths + more.paths,
            approved=None,
        )

    def with_limits(self, **limits: object) -> Self:
        """Replaces limits: `memory="128MiB"`, `call_timeout="5s"`, `concurrency=8`; see `Limits` for the names.

        Raises:
            PolicyError: a value does not parse, or there is no such limit.
        """
        try:
            return replace(self, limits=self.limits.with_values(**limits))
        except (TypeError, ValueError) as error:
            raise PolicyError([Problem(str(error), where="with_limits")]) from None

    def with_lease(self, capability: str, **terms: object) -> Self:
        """Sets the terms of a capability's lease: `with_lease("http", ttl="1h", requests=1000)`; see `LeaseTerms`.

        Raises:
            PolicyError: there is no such capability, it has no such term, or a value does not parse.
        """
        try:
            given = LeaseTerms.of(capability, **terms)
        except ValueError as error:
            raise PolicyError([Problem(str(error), where="with_lease")]) from None
        kept = [own for own in (*self.leases, given) if own is given or own.capability != capability]
        leases = sorted((own for own in kept if own.given()), key=lambda own: own.capability)
        return replace(self, leases=tuple(leases))

    def terms(self, capability: str) -> LeaseTerms:
        """Returns the terms of a capability's lease."""
        return next((own for own in self.leases if own.capability == capability), LeaseTerms(capability))

    def bind(self, places: Places) -> Self:
        """Returns the policy with `$DATA` and `$PLUGIN` replaced; rules with a variable not in `places` are dropped.

        The files that hold credentials are among its denied paths, whatever is granted around them.
        """
        secrets = (PathRule.parse(item.file, "rw", item.source) for item in self.credentials if item.file is not None)
        return replace(
            self,
            paths=bind_all(self.paths, places),
            denied_paths=tuple(dict.fromkeys((*bind_all(self.denied_paths, places), *secrets))),
            report=self.report.bind(places) if self.report is not None else None,
            on_request=self.on_request.bind(places) if self.on_request is not None else None,
            approved=self.approved.bind(places) if self.approved is not None else None,
        )

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a policy file.

        Raises:
            PolicyError: with every fault of the file, each with its line and a caret.
            OSError: the file cannot be read.
        """
        # Imported here, for pydantic is only needed where a file is read.
        from nyx_stream.policy.policy_file import read_policy

        fields, on_trial, on_request = read_policy(os.fspath(path))
        return cls(
            **fields,
            report=cls(**on_trial) if on_trial is not None else None,
            on_request=cls(**on_request) if on_request is not None else None,
        )

    def to_toml(self, *, limits: bool = True) -> str:
        """Returns the text of a policy file that `from_toml` reads back as an equal policy.

        Without `limits` it has no limits, and so is read back with the default ones.
        """
        from nyx_stream.policy.policy_file import print_policy

        return print_policy(self, limits=limits)


def _allowing(rules: SandboxPolicy) -> SandboxPolicy:
    return SandboxPolicy(connect=rules.connect, request=rules.request, paths=rules.paths)


def _rules_of(policy: SandboxPolicy) -> tuple[Any, ...]:
    """Returns the first six fields."""
    rules = (policy.connect, policy.denied_connect, policy.request, policy.denied_request)
    return (*rules, policy.paths, policy.denied_paths)


def _parse(call: str, parse: Callable[[str], _Rule], texts: Iterable[str]) -> tuple[_Rule, ...]:
    rules: list[_Rule] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            rules.append(parse(text))
        except RuleError as error:
            problems.append(Problem(error.reason, where=call, excerpt=error.text, offset=error.offset))
    if problems:
        raise PolicyError(problems)
    return tuple(rules)
