"""`nyx plan`: what a plugin would get under a policy, rule by rule, before anything of it runs."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer

from nyx_stream.cli import output
from nyx_stream.cli.isolation import IsolationOption
from nyx_stream.cli.layers import layer_of_limit, layer_of_rule
from nyx_stream.cli.optional import to_be_asked
from nyx_stream.cli.places import places_of
from nyx_stream.cli.plan_diff import plan_diff
from nyx_stream.host import find
from nyx_stream.isolation.backend import Level
from nyx_stream.policy import Limits, SandboxPolicy
from nyx_stream.policy.grant import Grant, GrantRow
from nyx_stream.policy.rules import Rule
from nyx_stream.text import escape


def plan(
    plugin: Annotated[str | None, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy file.")] = None,
    isolation: Annotated[IsolationOption, typer.Option(help="Where it would run.")] = IsolationOption.inline,
    data_dir: Annotated[str | None, typer.Option(help="The host's data directory.")] = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="OLD NEW", help="Instead: two plugins, manifests or policies, and what changes."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int | None:
    """Show what a plugin asks for, what a policy grants of it by which line, and which layer enforces that.

    With --diff, show what changes between two manifests or policies; exit code 1 says that the new one wants more.
    """
    if diff is not None:
        if plugin is not None or policy is not None:
            raise typer.BadParameter("--diff takes two places, and neither a plugin nor a policy besides")
        return plan_diff(*diff, json=json)
    if plugin is None or policy is None:
        raise typer.BadParameter("PLUGIN and --policy are needed, or --diff OLD NEW")
    source = find(plugin)
    places = places_of(source.manifest.id, source.folder, data_dir)
    grant = Grant.of(source.manifest, SandboxPolicy.from_toml(policy), places)
    seal = _seal_at(isolation.value)
    if json:
        output.say_json(_document(grant, seal))
    else:
        _print(grant, seal)
    return None


@dataclass(frozen=True, slots=True)
class _Seal:
    """What a level has of the kernel on this machine.

    Attributes:
        gaps: layers that a sealed process needs and that cannot be had, each with the reason.
        impossible: why the level cannot be had at all; empty if it can.
    """

    level: Level
    gaps: tuple[tuple[str, str], ...] = ()
    impossible: str = ""

    @property
    def missing(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.gaps)


def _seal_at(level: Level) -> _Seal:
    if level != "process":
        return _Seal(level)
    # Imports far more than a plan at another level needs.
    from nyx_stream.isolation.remote.wire.confinement import missing_layers, missing_sockets

    return _Seal(level, missing_layers(), missing_sockets())


def _document(grant: Grant, seal: _Seal) -> dict[str, Any]:
    level, degrade = seal.level, grant.policy.degrade
    return {
        "plugin": grant.manifest.id,
        "version": grant.manifest.version,
        "isolation": level,
        "degrade": degrade,
        "loads_here": not seal.impossible and (not seal.gaps or degrade == "allow"),
        "not_enforced": [{"layer": name, "reason": reason} for name, reason in seal.gaps],
        "rules": [_rule(row, seal) for row in grant.rows()],
        "not_granted": [_rule(row, seal) for row in grant.not_granted()],
        "optional": [_rule(row, seal) | {"when": when} for row, when in to_be_asked(grant)],
        "limits": {
            name: {"value": value, "from": origin, "layer": layer}
            for name, value, origin, layer in _limits(grant, seal)
        },
        "env": list(grant.env),
        "credentials": [
            {"rule": item.rule.text, "header": item.header, "from": item.origin, "at": str(item.source)}
            for item in grant.policy.credentials
        ],
        "report_only": [{"verdict": verdict, "rule": rule.text, "at": _at(rule)} for verdict, rule in _on_trial(grant)],
        "places": dict(grant.places),
    }


def _rule(row: GrantRow, seal: _Seal) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "asked": row.asked,
        "at": None if row.rule is None else _at(row.rule),
        "status": row.status,
        "granted_by": [{"rule": rule.text, "at": _at(rule)} for rule in row.by],
        "denied_by": [{"rule": rule.text, "at": _at(rule)} for rule in row.denied_by],
        "layer": layer_of_rule(row.kind, seal.level, seal.missing),
        "why": row.why,
    }


def _limits(grant: Grant, seal: _Seal) -> list[tuple[str, str | int, str, str]]:
    """Returns (name, printed value, who set it, layer) of each limit, in the order of `Limits`."""
    printed, defaults = grant.limits.printed(), Limits().printed()
    policy = grant.policy.limits.printed()
    rows = []
    for name in (field.name for field in fields(Limits)):
        asked = name in grant.manifest.asked_limits and printed[name] != policy[name]
        origin = "plugin.toml" if asked else "default" if printed[name] == defaults[name] else "policy"
        rows.append((name, printed[name], origin, layer_of_limit(name, seal.level, seal.missing)))
    return rows


def _print(grant: Grant, seal: _Seal) -> None:
    rows = grant.rows()
    output.say(f"{grant.manifest.id} {grant.manifest.version} at level {seal.level}")
    _print_gaps(grant, seal)
    output.say("")
    if rows:
        output.table(("KIND", "ASKED", "STATUS", "BY", "DENIED BY", "LAYER"), (_cells(row, seal) for row in rows))
    else:
        output.say("It asks for nothing.")
    output.say("\nLimits")
    output.table(
        ("LIMIT", "VALUE", "SET BY", "LAYER"),
        ((name, str(value), origin, layer) for name, value, origin, layer in _limits(grant, seal)),
    )
    output.say(f"\nEnvironment: {', '.join(grant.env) or 'nothing'}")
    for item in grant.policy.credentials:
        output.say(f"Credential: {escape(item.text)} ({item.source})")
    for verdict, rule in _on_trial(grant):
        output.say(f"Report only: {verdict} {escape(rule.text)} ({_at(rule)})")
    for place, directory in sorted(grant.places.items()):
        output.say(f"{place}: {escape(directory)}")
    missing = grant.not_granted()
    output.say(f"\nAsked and not granted: {len(missing) or 'nothing'}")
    for row in missing:
        why = f' ("{escape(row.why, 200)}")' if row.why else ""
        part = "only in part" if row.status == "partly" else "not at all"
        output.say(f"  {row.kind} {escape(row.asked)}: {part}{why}")
    for row, when in to_be_asked(grant):
        why = f' ("{escape(row.why, 200)}")' if row.why else ""
        output.say(f"Optional: {row.kind} {escape(row.asked)}: {when}{why}")


def _print_gaps(grant: Grant, seal: _Seal) -> None:
    if seal.impossible:
        output.say(f"It cannot be loaded here: {seal.impossible}")
    elif seal.gaps and grant.policy.degrade == "refuse":
        output.say('It cannot be loaded here, unless the policy says degrade = "allow". What is missing:')
    elif seal.gaps:
        output.say('Not enforced here, as degrade = "allow" in the policy lets pass:')
    for name, reason in seal.gaps:
        output.say(f"  {name}: {escape(reason)}")


def _on_trial(grant: Grant) -> list[tuple[str, Rule]]:
    rules = grant.policy.report
    if rules is None:
        return []
    allowed: tuple[Rule, ...] = (*rules.connect, *rules.request, *rules.paths)
    denied: tuple[Rule, ...] = (*rules.denied_connect, *rules.denied_request, *rules.denied_paths)
    return [*(("allow", rule) for rule in allowed), *(("deny", rule) for rule in denied)]


def _cells(row: GrantRow, seal: _Seal) -> tuple[str, ...]:
    by = "the policy's env" if row.kind == "env" and row.status == "granted" else _cited(row.by)
    layer = layer_of_rule(row.kind, seal.level, seal.missing)
    status = "optional" if row.optional and row.status == "refused" else row.status
    return (row.kind, row.asked, status, by, _cited(row.denied_by), layer)


def _cited(rules: Iterable[Rule]) -> str:
    return ", ".join(_at(rule) or rule.text for rule in rules) or "-"


def _at(rule: Rule) -> str | None:
    return None if rule.source is None else str(rule.source)
