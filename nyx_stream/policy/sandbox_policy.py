"""What an operator grants: a frozen value, built by calls that return a new policy, or read from a file."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeAlias, TypeVar

from nyx_stream.errors import PolicyError, Problem
from nyx_stream.policy.credential import Credential, parse_bound_rule, parse_header, parse_origin, parse_prefix
from nyx_stream.policy.limits import LeaseTerms, Limits
from nyx_stream.policy.rules import ConnectRule, PathRule, Places, RequestRule, RuleError, bind_all, parse_env

_Rule = TypeVar("_Rule")

Degrade: TypeAlias = Literal["refuse", "allow"]

_RULES = ("connect", "denied_connect", "request", "denied_request", "paths", "denied_paths")  # the first six fields


@dataclass(frozen=True)
class SandboxPolicy:
    """Rules and limits. An empty policy grants nothing; a deny rule beats every allow rule; there is no bypass.

    Every `allow_…` and `deny_…` takes one or more rules, parses all of them, and reports all faults together in one
    `PolicyError`.

    Attributes:
        degrade: what to do if this machine can't seal the plugin's process completely. With `"refuse"` the plugin isn't
            loaded; with `"allow"` it runs, and audit and report say which layers are missing.
        report: the report-only rules; see `report_only`.
        on_request: what a plugin gets as soon as it asks; see `allow_on_request`.
        approved: the rules that were approved while the plugin runs. The host sets it; no file contains it.
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

    def __post_init__(self) -> None:
        report, asked = self.report, self.on_request
        if report is not None and report != SandboxPolicy(*(getattr(report, name) for name in _RULES)):
            raise PolicyError([Problem("report-only rules may only be for connections, requests and paths")])
        if asked is not None and asked != SandboxPolicy(
            connect=asked.connect, request=asked.request, paths=asked.paths
        ):
            raise PolicyError([Problem("rules on request may only allow connections, requests and paths")])
        readable = [item.variable for item in self.credentials if item.variable in self.env]
        if readable:
            raise PolicyError(
                [Problem(f"{name} holds a credential: a plugin cannot be allowed to read it") for name in readable]
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
        # Readable before writable, as in a file: a printed policy must read back equal.
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
        """Adds a credential that the host sends with the requests that `rule` covers. It grants no request.

        Args:
            rule: a request rule: `"https://api.example.com/v1/**"`.
            header: the header's name. It replaces a header of that name that the plugin sends.
            value: where the secret is: `"env:NAME"` or `"file:/PATH"`.
            prefix: the text sent before the secret: `"Bearer "`.
        """
        parsed = _parse("bind_credential", parse_bound_rule, [rule])[0]
        try:
            added = Credential(parsed, parse_header(header), parse_origin(value), parse_prefix(prefix))
        except RuleError as error:
            raise PolicyError([Problem(error.reason, where="bind_credential")]) from None
        return replace(self, credentials=(*self.credentials, added))

    def report_only(self, rules: "SandboxPolicy") -> Self:
        """Sets the report-only rules, replacing earlier ones.

        A target that only an allow rule of `rules` allows, or that a deny rule of `rules` would deny, is allowed and
        audited as a would-be denial. Enforced deny rules still deny. `rules` can't have limits, variables or
        credentials.
        """
        return replace(self, report=rules)

    def allow_on_request(self, rules: "SandboxPolicy") -> Self:
        """Sets what a plugin gets as soon as it asks, without an approver, replacing earlier rules.

        A permission is granted if the manifest marks it as optional and an allow rule of `rules` covers it. `rules` may
        only have allow rules.
        """
        return replace(self, on_request=rules if rules != SandboxPolicy() else None)

    def merged(self) -> Self:
        """Returns the policy with the approved rules merged into its own."""
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
            PolicyError: a value does not parse, or a name is not a limit.
        """
        try:
            return replace(self, limits=self.limits.with_values(**limits))
        except (TypeError, ValueError) as error:
            raise PolicyError([Problem(str(error), where="with_limits")]) from None

    def with_lease(self, capability: str, **terms: object) -> Self:
        """Sets the terms of a capability's lease: `with_lease("http", ttl="1h", requests=1000)`; see `LeaseTerms`.

        Raises:
            PolicyError: the capability or one of its terms does not exist, or a value does not parse.
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
        """Returns the policy with `$DATA` and `$PLUGIN` replaced; drops rules whose variable `places` doesn't have.

        It denies the files that hold credentials, even below a granted prefix.
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
        # Imported here because pydantic is only needed where a file is read.
        from nyx_stream.policy.policy_file import read_policy

        fields, report, on_request = read_policy(os.fspath(path))
        return cls(
            **fields,
            report=cls(**report) if report is not None else None,
            on_request=cls(**on_request) if on_request is not None else None,
        )

    def to_toml(self, *, limits: bool = True) -> str:
        """Returns the text of a policy file that `from_toml` reads back as an equal policy.

        With `limits=False` the text has no limits, and reads back with the default ones.
        """
        from nyx_stream.policy.policy_file import print_policy

        return print_policy(self, limits=limits)


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
