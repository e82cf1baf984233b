"""The changes from one manifest to another, or from one policy to another, and which of them widen access.

This is as cautious as `coverage`: a change that widens access is never missed. A new rule that only two old rules
together cover counts as wider.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Self

from nyx_stream.policy.coverage import covers, overlaps
from nyx_stream.policy.credential import Credential
from nyx_stream.policy.limits import TERMS, Limits, print_term
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import PathRule, RequestRule, Rule, Source
from nyx_stream.policy.sandbox_policy import Degrade, SandboxPolicy

What = Literal["added", "removed", "widened", "narrowed"]

_LEASE_TERMS = [f"{capability}.{term}" for capability in TERMS for term in TERMS[capability]]


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        section: `"allow"`, `"deny"`, `"report"` (report-only rules), `"on_request"`, `"env"`, `"credentials"`,
            `"limits"`, `"leases"`, `"degrade"`.
        kind: `"connect"`, `"request"`, `"read"`, `"write"`, `"path"`; in other sections the name of what changes.
        what: how it changes. A lowered limit is `"narrowed"`.
        old, new: the texts before and after, or `None`.
        more: whether the new one asks for more, or grants more.
        at: where the new text was written, or else the old one.
    """

    section: str
    kind: str
    what: What
    old: str | None
    new: str | None
    more: bool
    at: Source | None = None


@dataclass(frozen=True)
class _Permissions:
    """What a manifest asks for, or a policy grants, in one form, so that two can be compared.

    Attributes:
        report: the allow rules that are report-only. A report-only deny rule denies nothing, so it isn't compared.
        limits: by name. A limit that is missing is unbounded here.
        leases: by capability and term: `"http.ttl"`.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    report: tuple[Rule, ...] = ()
    on_request: tuple[Rule, ...] = ()
    env: tuple[str, ...] = ()
    limits: Mapping[str, int | float] = field(default_factory=dict)
    leases: Mapping[str, int | float] = field(default_factory=dict)
    credentials: tuple[Credential, ...] = ()
    degrade: Degrade = "refuse"

    @classmethod
    def of(cls, given: Manifest | SandboxPolicy) -> Self:
        allow: tuple[Rule, ...] = (*given.connect, *given.request, *given.paths)
        if isinstance(given, Manifest):
            limits = {name: getattr(given.limits, name) for name in given.asked_limits}
            return cls(allow=allow, env=tuple(dict.fromkeys(given.env)), limits=limits)
        report, asked = given.report or SandboxPolicy(), given.on_request or SandboxPolicy()
        return cls(
            allow=allow,
            deny=(*given.denied_connect, *given.denied_request, *given.denied_paths),
            report=(*report.connect, *report.request, *report.paths),
            on_request=(*asked.connect, *asked.request, *asked.paths),
            env=tuple(dict.fromkeys(given.env)),
            limits={item.name: getattr(given.limits, item.name) for item in fields(Limits)},
            leases={f"{own.capability}.{name}": value for own in given.leases for name, value in own.given().items()},
            credentials=given.credentials,
            degrade=given.degrade,
        )


def difference(old: Manifest | SandboxPolicy, new: Manifest | SandboxPolicy) -> tuple[Change, ...]:
    """Returns every change from `old` to `new`, rules first, in the order of `new`."""
    before, after = _Permissions.of(old), _Permissions.of(new)
    changes = [
        *_allow_changes("allow", before.allow, after.allow, before.allow),
        *_allow_changes("report", before.report, after.report, (*before.report, *before.allow)),
        *_allow_changes("on_request", before.on_request, after.on_request, (*before.on_request, *before.allow)),
        *_deny_changes(before.deny, after.deny, (*after.allow, *after.on_request)),
        *(Change("env", name, "added", None, name, True) for name in after.env if name not in before.env),
        *(Change("env", name, "removed", name, None, False) for name in before.env if name not in after.env),
        *_credential_changes(before.credentials, after.credentials),
        *_bound_changes("limits", before.limits, after.limits, [item.name for item in fields(Limits)]),
        *_bound_changes("leases", before.leases, after.leases, _LEASE_TERMS),
    ]
    if before.degrade != after.degrade:
        more = after.degrade == "allow"
        what: What = "widened" if more else "narrowed"
        changes.append(Change("degrade", "degrade", what, before.degrade, after.degrade, more))
    return tuple(changes)


def wants_more(changes: Iterable[Change]) -> bool:
    """Returns whether some change asks for more, or grants more."""
    return any(change.more for change in changes)


def _allow_changes(section: str, old: Sequence[Rule], new: Sequence[Rule], had: Sequence[Rule]) -> Iterator[Change]:
    for what, before, after in _paired(old, new):
        more = after is not None and not any(covers(rule, after) for rule in had)
        yield _rule_change(section, what, before, after, more)


def _deny_changes(old: Sequence[Rule], new: Sequence[Rule], allowed: Sequence[Rule]) -> Iterator[Change]:
    for what, before, after in _paired(old, new):
        # Removing a deny rule only grants more where some rule allows the target.
        lifted = before is not None and not any(covers(rule, before) for rule in new)
        more = lifted and any(overlaps(rule, before) for rule in allowed if before is not None)
        yield _rule_change("deny", what, before, after, more)


def _paired(old: Sequence[Rule], new: Sequence[Rule]) -> list[tuple[What, Rule | None, Rule | None]]:
    """Returns each new rule with the old rule that it replaces, then the old rules that nothing replaces."""
    gone = [rule for rule in old if rule not in new]
    replaced: list[Rule] = []
    pairs: list[tuple[What, Rule | None, Rule | None]] = []
    for rule in dict.fromkeys(new):
        if rule in old:
            continue
        narrower = [before for before in gone if covers(rule, before)]
        wider = [before for before in gone if covers(before, rule)]
        same = [before for before in narrower if before in wider]  # the same rule in other words
        if same:
            replaced += same
        elif wider:
            replaced.append(wider[0])
            pairs.append(("narrowed", wider[0], rule))
        elif narrower:
            replaced += narrower
            pairs += [("widened", before, rule) for before in narrower]
        else:
            pairs.append(("added", None, rule))
    return [*pairs, *(("removed", before, None) for before in dict.fromkeys(gone) if before not in replaced)]


def _rule_change(section: str, what: What, before: Rule | None, after: Rule | None, more: bool) -> Change:
    shown = after or before
    old, new = (rule.text if rule is not None else None for rule in (before, after))
    if old == new and isinstance(before, PathRule) and isinstance(after, PathRule):
        old, new = f"{old} ({before.mode})", f"{new} ({after.mode})"
    if isinstance(shown, PathRule):
        kind = "path" if section == "deny" else "read" if shown.mode == "r" else "write"
    else:
        kind = "request" if isinstance(shown, RequestRule) else "connect"
    return Change(section, kind, what, old, new, more, shown.source if shown is not None else None)


def _credential_changes(old: Sequence[Credential], new: Sequence[Credential]) -> Iterator[Change]:
    """A credential for more requests grants more, because the plugin acts with it."""
    gone = [item for item in old if item not in new]
    for item in (item for item in new if item not in old):
        alike = [own for own in gone if (own.header, own.origin, own.prefix) == (item.header, item.origin, item.prefix)]
        before = next((own for own in alike if covers(own.rule, item.rule) or covers(item.rule, own.rule)), None)
        if before is not None:
            gone.remove(before)
        more = not any(covers(own.rule, item.rule) for own in alike)
        what: What = "added" if before is None else "widened" if more else "narrowed"
        text = before.text if before is not None else None
        yield Change("credentials", item.header, what, text, item.text, more, item.source)
    for item in gone:
        yield Change("credentials", item.header, "removed", item.text, None, False, item.source)


def _bound_changes(
    section: str, old: Mapping[str, int | float], new: Mapping[str, int | float], names: Iterable[str]
) -> Iterator[Change]:
    """A bound that is raised or removed grants more."""
    for name in names:
        before, after = old.get(name), new.get(name)
        if before != after:
            more = before is not None and (after is None or after > before)
            what: What = "widened" if more else "narrowed"
            yield Change(section, name, what, _print(section, name, before), _print(section, name, after), more)


def _print(section: str, name: str, value: float | None) -> str | None:
    if value is None:
        return None
    if section == "leases":
        return str(print_term(name.partition(".")[2], value))
    return str(Limits.of(**{name: value}).printed()[name])
