"""The changes from one manifest to another, or from one policy to another, and which of them widen access.

This is as cautious as `coverage`: a change that widens access is never missed. A new rule that only two old rules
together cover counts as wider.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from nyx_stream.policy.coverage import covers, overlaps
from nyx_stream.policy.credential import Credential
from nyx_stream.policy.limits import TERMS, Limits, Term, print_term
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import PathRule, RequestRule, Rule, Source
from nyx_stream.policy.sandbox_policy import SandboxPolicy

What = Literal["added", "removed", "widened", "narrowed"]

_LIMITS = [item.name for item in fields(Limits)]
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


def difference(old: Manifest | SandboxPolicy, new: Manifest | SandboxPolicy) -> tuple[Change, ...]:
    """Returns every change from `old` to `new`, rules first, in the order of `new`."""
    before, after = _as_policy(old), _as_policy(new)
    had, has = _allow_rules(before), _allow_rules(after)
    # A report-only deny rule denies nothing, so it isn't compared.
    reported, reports = _allow_rules(before.report), _allow_rules(after.report)
    could_ask, can_ask = _allow_rules(before.on_request), _allow_rules(after.on_request)
    changes = [
        *_allow_changes("allow", had, has, had),
        *_allow_changes("report", reported, reports, (*reported, *had)),
        *_allow_changes("on_request", could_ask, can_ask, (*could_ask, *had)),
        *_deny_changes(_deny_rules(before), _deny_rules(after), (*has, *can_ask)),
        *(Change("env", name, "added", None, name, True) for name in _added(before.env, after.env)),
        *(Change("env", name, "removed", name, None, False) for name in _added(after.env, before.env)),
        *_credential_changes(before.credentials, after.credentials),
        *_bound_changes("limits", _limits(old), _limits(new), _LIMITS),
        *_bound_changes("leases", _lease_terms(before), _lease_terms(after), _LEASE_TERMS),
    ]
    if before.degrade != after.degrade:
        more = after.degrade == "allow"
        what: What = "widened" if more else "narrowed"
        changes.append(Change("degrade", "degrade", what, before.degrade, after.degrade, more))
    return tuple(changes)


def wants_more(changes: Iterable[Change]) -> bool:
    """Returns whether some change asks for more, or grants more."""
    return any(change.more for change in changes)


def _as_policy(given: Manifest | SandboxPolicy) -> SandboxPolicy:
    if isinstance(given, SandboxPolicy):
        return given
    return SandboxPolicy(connect=given.connect, request=given.request, paths=given.paths, env=given.env)


def _allow_rules(policy: SandboxPolicy | None) -> tuple[Rule, ...]:
    return () if policy is None else (*policy.connect, *policy.request, *policy.paths)


def _deny_rules(policy: SandboxPolicy) -> tuple[Rule, ...]:
    return (*policy.denied_connect, *policy.denied_request, *policy.denied_paths)


def _added(old: Sequence[str], new: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(new) if name not in old]


def _limits(given: Manifest | SandboxPolicy) -> dict[str, Term]:
    """Returns limits by name. A limit that a manifest doesn't give is missing, which counts as unbounded."""
    names = _LIMITS if isinstance(given, SandboxPolicy) else given.asked_limits
    return {name: getattr(given.limits, name) for name in names}


def _lease_terms(policy: SandboxPolicy) -> dict[str, Term]:
    return {f"{own.capability}.{name}": value for own in policy.leases for name, value in own.given().items()}


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
    section: str, old: Mapping[str, Term], new: Mapping[str, Term], names: Iterable[str]
) -> Iterator[Change]:
    """A bound that is raised or removed grants more."""
    for name in names:
        before, after = old.get(name), new.get(name)
        if before != after:
            more = before is not None and (after is None or after > before)
            what: What = "widened" if more else "narrowed"
            unit = name.rpartition(".")[2]
            text, new_text = (None if value is None else str(print_term(unit, value)) for value in (before, after))
            yield Change(section, name, what, text, new_text, more)
