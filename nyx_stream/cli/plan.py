"""`nyx plan`: shows what a plugin would be granted under a policy, or what changes between two of them.

In a plan, `guard` is the Python check in front of a capability. `kernel` refuses everything that bypasses it, as far as
this machine can; `missing` names the layers that it lacks. `host` is the framework that runs the calls. `nothing` means
that the limit isn't enforced at that level.
"""

import os
import tomllib
from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.options import DataDir, Isolation, IsolationOption, Json, places_of
from nyx_stream.host import find
from nyx_stream.host.approvals.store import denied_by, on_request
from nyx_stream.isolation.backend import Level
from nyx_stream.policy import Limits, SandboxPolicy
from nyx_stream.policy.approval import OptionalPermission
from nyx_stream.policy.difference import Change, difference, wants_more
from nyx_stream.policy.grant import Grant, GrantRow
from nyx_stream.policy.manifest import FILE_NAME, Manifest
from nyx_stream.policy.rules import Rule
from nyx_stream.text import escape

RULE_KINDS = ("connect", "request", "read", "write", "env")

_BY_HOST = frozenset({"call_timeout", "setup_timeout", "concurrency", "queue"})
_BY_KERNEL = frozenset({"memory", "processes", "cpu_time"})

# The sealing layers that a rule needs, for every system. If one is missing, the guard can be bypassed.
_SYSTEM_CALL_FILTERS = frozenset({"seccomp", "seatbelt", "pledge", "kernel"})
_NEEDS = {
    "connect": _SYSTEM_CALL_FILTERS,
    "request": _SYSTEM_CALL_FILTERS,
    "read": _SYSTEM_CALL_FILTERS | {"landlock"},
    "write": _SYSTEM_CALL_FILTERS | {"landlock"},
    "env": frozenset({"environment", "kernel"}),
}


def layer_of_rule(kind: str, isolation: Level, missing: Collection[str] = ()) -> str:
    """Returns the layers that enforce a rule of `kind` (connect, request, read, write, env)."""
    if kind not in RULE_KINDS:
        raise ValueError(f"{kind!r} isn't a kind of rule")
    return "guard" if isolation == "inline" or not _NEEDS[kind].isdisjoint(missing) else "guard+kernel"


def layer_of_limit(name: str, isolation: Level, missing: Collection[str] = ()) -> str:
    """Returns the layer that enforces the limit `name`."""
    if name not in {field.name for field in fields(Limits)}:
        raise ValueError(f"{name!r} isn't a limit")
    kernel_limits = isolation != "inline" and "limits" not in missing
    if name in _BY_HOST:
        return "host"
    if name in _BY_KERNEL:
        return "kernel" if kernel_limits else "nothing"
    if name == "open_files" and kernel_limits:
        return "guard+kernel"  # the files capability counts its own files, the kernel every descriptor
    return "guard"


def plan(
    plugin: Annotated[str | None, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy file.")] = None,
    isolation: Isolation = IsolationOption.inline,
    data_dir: DataDir = None,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="OLD NEW", help="Compare two plugins, manifests or policies instead."),
    ] = None,
    json: Json = False,
) -> int | None:
    """Show what a plugin would be granted under a policy.

    For each permission: which line grants it, and which layer enforces it. With --diff, show what changes between two
    manifests or policies; the exit code is 1 if the new one wants more.
    """
    if diff is not None:
        if plugin is not None or policy is not None:
            raise typer.BadParameter("--diff cannot be combined with a plugin or --policy")
        return _plan_diff(*diff, json=json)
    if plugin is None or policy is None:
        raise typer.BadParameter("give PLUGIN and --policy FILE, or --diff OLD NEW")
    source = find(plugin)
    places = places_of(source.manifest.id, source.folder, data_dir)
    grant = Grant.of(source.manifest, SandboxPolicy.from_toml(policy), places)
    gaps, unsupported = _gaps_at(isolation.value)
    document = _document(grant, isolation.value, gaps, unsupported)
    if json:
        output.print_json(document)
    else:
        _print(document, unsupported)
    return None


def _gaps_at(level: Level) -> tuple[tuple[tuple[str, str], ...], str]:
    """Returns the layers that the level needs but this machine lacks, with reasons, and why it isn't available."""
    if level != "process":
        return (), ""
    # Imported late: plans at other levels don't need it.
    from nyx_stream.isolation.remote.wire.confinement import missing_layers, missing_sockets

    return missing_layers(), missing_sockets()


def _document(grant: Grant, level: Level, gaps: tuple[tuple[str, str], ...], unsupported: str) -> dict[str, Any]:
    degrade = grant.policy.degrade
    missing = frozenset(name for name, _ in gaps)
    rows = [(row, _rule(row, level, missing)) for row in grant.rows()]
    return {
        "plugin": grant.manifest.id,
        "version": grant.manifest.version,
        "isolation": level,
        "degrade": degrade,
        "loads_here": not unsupported and (not gaps or degrade == "allow"),
        "not_enforced": [{"layer": name, "reason": reason} for name, reason in gaps],
        "rules": [rule for _, rule in rows],
        "not_granted": [_rule(row, level, missing) for row in grant.not_granted()],
        "optional": [
            rule | {"when": _condition(grant, row)} for row, rule in rows if row.optional and row.status != "granted"
        ],
        "limits": _limits(grant, level, missing),
        "env": list(grant.env),
        "credentials": [
            {"rule": item.rule.text, "header": item.header, "from": item.origin, "at": str(item.source)}
            for item in grant.policy.credentials
        ],
        "report_only": [
            {"verdict": verdict, "rule": rule.text, "at": _at(rule)} for verdict, rule in _report_only_rules(grant)
        ],
        "places": dict(grant.places),
    }


def _rule(row: GrantRow, level: Level, missing: frozenset[str]) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "asked": row.asked,
        "at": None if row.rule is None else _at(row.rule),
        "status": row.status,
        "granted_by": [{"rule": rule.text, "at": _at(rule)} for rule in row.by],
        "denied_by": [{"rule": rule.text, "at": _at(rule)} for rule in row.denied_by],
        "layer": layer_of_rule(row.kind, level, missing),
        "why": row.why,
    }


def _limits(grant: Grant, level: Level, missing: frozenset[str]) -> dict[str, dict[str, Any]]:
    values, defaults = grant.limits.printed(), Limits().printed()
    policy = grant.policy.limits.printed()
    limits = {}
    for name in (field.name for field in fields(Limits)):
        requested = name in grant.manifest.asked_limits and values[name] != policy[name]
        origin = "plugin.toml" if requested else "default" if values[name] == defaults[name] else "policy"
        limits[name] = {"value": values[name], "from": origin, "layer": layer_of_limit(name, level, missing)}
    return limits


def _report_only_rules(grant: Grant) -> list[tuple[str, Rule]]:
    rules = grant.policy.report
    if rules is None:
        return []
    allowed: tuple[Rule, ...] = (*rules.connect, *rules.request, *rules.paths)
    denied: tuple[Rule, ...] = (*rules.denied_connect, *rules.denied_request, *rules.denied_paths)
    return [*(("allow", rule) for rule in allowed), *(("deny", rule) for rule in denied)]


def _condition(grant: Grant, row: GrantRow) -> str:
    if row.kind == "env" or row.rule is None:
        return "never"
    if (denied := denied_by(grant.policy, row.kind, row.rule)) is not None:
        return f"never: {denied}"
    given = on_request(grant.policy, OptionalPermission(row.kind, row.rule), grant.places)
    if given is not None:
        return f"on request ({given.source or given.text})"
    return "on request, if the host's approver agrees"


def _at(rule: Rule) -> str | None:
    return None if rule.source is None else str(rule.source)


def _print(plan: dict[str, Any], unsupported: str) -> None:
    output.print_text(f"{plan['plugin']} {plan['version']} at level {plan['isolation']}")
    if unsupported:
        output.print_text(f"It cannot be loaded on this machine: {unsupported}")
    elif not plan["loads_here"]:
        output.print_text('It cannot be loaded on this machine unless the policy has degrade = "allow". Missing:')
    elif plan["not_enforced"]:
        output.print_text('Not enforced on this machine, which the policy accepts with degrade = "allow":')
    for gap in plan["not_enforced"]:
        output.print_text(f"  {gap['layer']}: {escape(gap['reason'])}")
    output.print_text("")
    if plan["rules"]:
        optional = [(rule["kind"], rule["asked"]) for rule in plan["optional"] if rule["status"] == "refused"]
        head = ("KIND", "ASKED", "STATUS", "BY", "DENIED BY", "LAYER")
        output.print_table(head, (_cells(rule, optional) for rule in plan["rules"]))
    else:
        output.print_text("It requests nothing.")
    output.print_text("\nLimits")
    rows = ((name, str(limit["value"]), limit["from"], limit["layer"]) for name, limit in plan["limits"].items())
    output.print_table(("LIMIT", "VALUE", "SET BY", "LAYER"), rows)
    output.print_text(f"\nEnvironment: {', '.join(plan['env']) or 'nothing'}")
    for item in plan["credentials"]:
        text = f"{item['header']} from {item['from']} for {item['rule']}"
        output.print_text(f"Credential: {escape(text)} ({item['at']})")
    for rule in plan["report_only"]:
        output.print_text(f"Report only: {rule['verdict']} {escape(rule['rule'])} ({rule['at']})")
    for place, directory in sorted(plan["places"].items()):
        output.print_text(f"{place}: {escape(directory)}")
    output.print_text(f"\nRequested but not granted: {len(plan['not_granted']) or 'nothing'}")
    for rule in plan["not_granted"]:
        part = "only in part" if rule["status"] == "partly" else "not at all"
        output.print_text(f"  {rule['kind']} {escape(rule['asked'])}: {part}{_reason(rule)}")
    for rule in plan["optional"]:
        output.print_text(f"Optional: {rule['kind']} {escape(rule['asked'])}: {rule['when']}{_reason(rule)}")


def _cells(rule: dict[str, Any], optional: list[tuple[str, str]]) -> tuple[str, ...]:
    kind, asked, status = rule["kind"], rule["asked"], rule["status"]
    by = "the policy's env" if kind == "env" and status == "granted" else _cite(rule["granted_by"])
    if (kind, asked) in optional:
        status = "optional"
    return (kind, asked, status, by, _cite(rule["denied_by"]), rule["layer"])


def _cite(rules: list[dict[str, str]]) -> str:
    return ", ".join(rule["at"] or rule["rule"] for rule in rules) or "-"


def _reason(rule: dict[str, Any]) -> str:
    return f' ("{escape(rule["why"], 200)}")' if rule["why"] else ""


def _plan_diff(old: str, new: str, *, json: bool) -> int:
    """Prints the changes; returns the exit code, which says whether `new` wants more."""
    one, other = _load(old), _load(new)
    if isinstance(one, Manifest) != isinstance(other, Manifest):
        given = f"{_title(one)} and {_title(other)}"
        raise typer.BadParameter(f"--diff compares two manifests or two policies, not {given}")
    changes = difference(one, other)
    more = wants_more(changes)
    if json:
        details = {"wants_more": more, "changes": [_change(change) for change in changes]}
        output.print_json({"old": _origin(old, one), "new": _origin(new, other), **details})
        return ExitCode.DENIED if more else ExitCode.OK
    output.print_text(f"old: {_title(one)} ({escape(old)})")
    output.print_text(f"new: {_title(other)} ({escape(new)})\n")
    if not changes:
        output.print_text("No changes.")
        return ExitCode.OK
    names = ("what", "section", "kind", "old", "new", "more", "at")
    rows = (_change(change) | {"more": "more" if change.more else None} for change in changes)
    heads = ("CHANGE", *(name.upper() for name in names[1:]))
    output.print_table(heads, ([row[name] or "-" for name in names] for row in rows))
    wanting = sum(change.more for change in changes)
    verb = "wants" if wanting == 1 else "want"
    total = output.count(len(changes), "change")
    output.print_text(f"\n{wanting} of {total} {verb} more." if wanting else "\nNo change wants more.")
    return ExitCode.DENIED if more else ExitCode.OK


def _load(where: str) -> Manifest | SandboxPolicy:
    """Loads the manifest of a folder or an installed plugin, or a file: a manifest if it has `entry`, else a policy."""
    if not os.path.isfile(where):
        return find(where).manifest
    with open(where, "rb") as file:
        try:
            is_manifest = "entry" in tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):  # reported with its position when the file is loaded
            is_manifest = os.path.basename(where) == FILE_NAME
    return Manifest.from_toml(where) if is_manifest else SandboxPolicy.from_toml(where)


def _title(loaded: Manifest | SandboxPolicy) -> str:
    return f"the manifest of {loaded.id} {loaded.version}" if isinstance(loaded, Manifest) else "a policy"


def _origin(where: str, loaded: Manifest | SandboxPolicy) -> dict[str, str]:
    if isinstance(loaded, Manifest):
        return {"kind": "manifest", "from": where, "id": loaded.id, "version": loaded.version}
    return {"kind": "policy", "from": where}


def _change(change: Change) -> dict[str, Any]:
    return asdict(change) | {"at": None if change.at is None else str(change.at)}
