"""The policy file: its shape, its reader and its printer."""

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.credential import Credential, check_rule, parse_header, parse_origin, parse_prefix
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.path_rule import PathRule
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import Source, parse_env
from nyx_stream.policy.terms import TERMS, LeaseTerms
from nyx_stream.policy.toml_source import Key

if TYPE_CHECKING:
    from nyx_stream.policy.sandbox_policy import SandboxPolicy

# One field per limit, so that the schema and the reader cannot name others than `Limits` has.
_LIMITS: dict[str, Any] = dict.fromkeys(Limits.__dataclass_fields__, (str | int | float, None))
LimitsTable: type[Table] = create_model(
    "LimitsTable",
    __base__=Table,
    __doc__='Sizes as "128MiB" or bytes, durations as "5s" or seconds, counts as whole numbers.',
    **_LIMITS,
)


def _lease_table(capability: str) -> Any:
    fields: dict[str, Any] = dict.fromkeys(TERMS[capability], (str | int | float, None))
    text = "How long and how far the capability may be used."
    return create_model(f"{capability.title()}LeaseTable", __base__=Table, __doc__=text, **fields), Field(default=None)


# In the same way, one table per capability with a field per term.
_LEASES: dict[str, Any] = {capability: _lease_table(capability) for capability in TERMS}
LeasesTable: type[Table] = create_model("LeasesTable", __base__=Table, __doc__="Leases, by capability.", **_LEASES)


class AllowTable(Table):
    """What is granted."""

    connect: list[str] = Field(
        default=[], description='Connect rules: "api.example.com", "*.example.com:443", "10.0.0.0/8".'
    )
    request: list[str] = Field(default=[], description='Request rules: "GET https://api.met.no/v1/**".')
    read: list[str] = Field(default=[], description="Path prefixes that may be read.")
    write: list[str] = Field(default=[], description="Path prefixes that may be read and written.")
    env: list[str] = Field(default=[], description="Environment variables that may be read.")


class DenyTable(Table):
    """What is forbidden, whatever is granted."""

    connect: list[str] = Field(default=[], description="Connect rules.")
    request: list[str] = Field(default=[], description="Request rules; without methods, every method.")
    path: list[str] = Field(default=[], description="Path prefixes on which every operation is forbidden.")


class RuleLists(Table):
    """Rules that allow, of the kinds that a guard decides on."""

    connect: list[str] = Field(default=[], description="Connect rules.")
    request: list[str] = Field(default=[], description="Request rules.")
    read: list[str] = Field(default=[], description="Path prefixes that may be read.")
    write: list[str] = Field(default=[], description="Path prefixes that may be read and written.")


class ReportAllowTable(RuleLists):
    """What is let pass and audited as a would-be denial, where no enforced rule allows it."""


class OnRequestTable(RuleLists):
    """What a plugin gets as soon as it asks, where its manifest has it as optional."""


class RulesTable(Table):
    """Rules on trial: what they would deny is let pass, and audited as a would-be denial."""

    mode: Literal["report"] = Field(description="Enforced rules stand in [allow] and [deny].")
    allow: ReportAllowTable = ReportAllowTable()
    deny: DenyTable = DenyTable()


class CredentialTable(Table):
    """A secret that the host puts into the requests of a rule, below the plugin. It grants no request."""

    rule: str = Field(description='Request rule: "https://api.example.com/**".')
    header: str = Field(description='The header that carries it: "Authorization".')
    value: str = Field(description='Where the secret is: "env:NAME" or "file:/PATH". Never the secret itself.')
    prefix: str = Field(default="", description='What is sent before the secret: "Bearer ".')


class PolicyFile(Table):
    """A Nyx policy: what an operator grants to a plugin."""

    degrade: Literal["refuse", "allow"] = Field(
        default="refuse", description="Whether a process that cannot be sealed completely may run."
    )
    allow: AllowTable = AllowTable()
    deny: DenyTable = DenyTable()
    on_request: OnRequestTable = OnRequestTable()
    limits: LimitsTable = LimitsTable()  # type: ignore[valid-type]  # a class made at run time
    leases: LeasesTable = LeasesTable()  # type: ignore[valid-type]  # a class made at run time
    credentials: list[CredentialTable] = Field(default=[])
    rules: list[RulesTable] = Field(default=[])


def read_policy(path: str) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]:
    """Returns the fields of a `SandboxPolicy`, and those of its report-only rules and of those on request, or `None`.

    Raises `PolicyError` with every fault, or `OSError`.
    """
    file = ConfigFile(path, PolicyFile)
    allow = file.values.allow
    fields = _rules(file, (), allow, file.values.deny) | {
        "env": file.rules(("allow", "env"), allow.env, parse_env),
        "limits": file.limits(("limits",), file.values.limits),
        "leases": _read_leases(file),
        "degrade": file.values.degrade,
        "credentials": _credentials(file),
    }
    on_trial = [
        _rules(file, ("rules", index), table.allow, table.deny) for index, table in enumerate(file.values.rules)
    ]
    on_request = _allowing(file, ("on_request",), file.values.on_request)
    file.finish()
    return fields, _joined(on_trial) if on_trial else None, on_request if any(on_request.values()) else None


def _joined(tables: list[dict[str, Any]]) -> dict[str, Any]:
    joined = {name: tuple(rule for table in tables for rule in table[name]) for name in tables[0]}
    # Readable before writable, as the builder has them: then a policy equals the one that its file is read as.
    return joined | {"paths": tuple(sorted(joined["paths"], key=lambda rule: rule.mode))}


def _rules(file: ConfigFile[PolicyFile], key: Key, allow: AllowTable | RuleLists, deny: DenyTable) -> dict[str, Any]:
    return _allowing(file, (*key, "allow"), allow) | {
        "denied_connect": file.rules((*key, "deny", "connect"), deny.connect, ConnectRule.parse),
        "denied_request": file.rules((*key, "deny", "request"), deny.request, RequestRule.parse),
        "denied_paths": file.rules((*key, "deny", "path"), deny.path, parse_writable),
    }


def _allowing(file: ConfigFile[PolicyFile], key: Key, allow: AllowTable | RuleLists) -> dict[str, Any]:
    return {
        "connect": file.rules((*key, "connect"), allow.connect, ConnectRule.parse),
        "request": file.rules((*key, "request"), allow.request, RequestRule.parse),
        "paths": file.rules((*key, "read"), allow.read, parse_readable)
        + file.rules((*key, "write"), allow.write, parse_writable),
    }


def _credentials(file: ConfigFile[PolicyFile]) -> tuple[Credential, ...]:
    found: list[Credential] = []
    for index, table in enumerate(file.values.credentials):
        key = ("credentials", index)
        rule = file.rule((*key, "rule"), table.rule, _parse_bound)
        header = file.rule((*key, "header"), table.header, parse_header)
        # Whoever put the secret itself here must not find it in a log as well.
        origin = file.rule((*key, "value"), table.value, parse_origin, shown=False)
        prefix = file.rule((*key, "prefix"), table.prefix, parse_prefix, shown=False)
        if rule is None or header is None or origin is None or prefix is None:
            continue
        if origin.startswith("env:") and origin.removeprefix("env:") in file.values.allow.env:
            file.fault((*key, "rule"), f"{origin} is also in [allow] env: the plugin could read the secret there")
        found.append(Credential(rule, header, origin, prefix, rule.source))
    return tuple(found)


def _parse_bound(text: str, source: Source | None = None) -> RequestRule:
    rule = RequestRule.parse(text, source)
    check_rule(rule)
    return rule


def _read_leases(file: ConfigFile[PolicyFile]) -> tuple[LeaseTerms, ...]:
    leases: list[LeaseTerms] = []
    for capability in sorted(TERMS):
        table = getattr(file.values.leases, capability)
        values: dict[str, object] = table.model_dump(exclude_unset=True) if isinstance(table, Table) else {}
        for name, value in list(values.items()):
            try:
                LeaseTerms.of(capability, **{name: value})
            except ValueError as fault:
                file.fault(("leases", capability, name), str(fault))
                del values[name]
        if values:
            leases.append(LeaseTerms.of(capability, **values))
    return tuple(leases)


def parse_readable(text: str, source: Source | None = None) -> PathRule:
    """Reads a prefix of mode `r`."""
    return PathRule.parse(text, "r", source)


def parse_writable(text: str, source: Source | None = None) -> PathRule:
    """Reads a prefix of mode `rw`."""
    return PathRule.parse(text, "rw", source)


def print_policy(policy: "SandboxPolicy", *, limits: bool = True) -> str:
    """Returns the text of a file that `read_policy` reads back as an equal policy, with or without its limits."""
    tables = _tables(policy)
    tables["allow"]["env"] = list(policy.env)
    lines = [] if policy.degrade == "refuse" else [f"degrade = {_value(policy.degrade)}", ""]
    lines += _printed(tables, "")
    if policy.on_request is not None:
        lines += _printed({"on_request": _allowed(policy.on_request)}, "")
    if limits:
        lines += ["[limits]", *(f"{key} = {_value(value)}" for key, value in policy.limits.printed().items()), ""]
    for terms in policy.leases:
        lines += [f"[leases.{terms.capability}]"]
        lines += [*(f"{key} = {_value(value)}" for key, value in terms.printed().items()), ""]
    for item in policy.credentials:
        values = {"rule": item.rule.text, "header": item.header, "value": item.origin, "prefix": item.prefix}
        lines += ["[[credentials]]", *(f"{key} = {_value(value)}" for key, value in values.items() if value), ""]
    if policy.report is not None:
        lines += ["[[rules]]", 'mode = "report"', "", *_printed(_tables(policy.report), "rules.")]
    return "\n".join(lines)


def _tables(policy: "SandboxPolicy") -> dict[str, dict[str, list[str]]]:
    return {
        "allow": _allowed(policy),
        "deny": {
            "connect": [rule.text for rule in policy.denied_connect],
            "request": [rule.text for rule in policy.denied_request],
            "path": [rule.text for rule in policy.denied_paths],
        },
    }


def _allowed(policy: "SandboxPolicy") -> dict[str, list[str]]:
    return {
        "connect": [rule.text for rule in policy.connect],
        "request": [rule.text for rule in policy.request],
        "read": [rule.text for rule in policy.paths if rule.mode == "r"],
        "write": [rule.text for rule in policy.paths if rule.mode == "rw"],
    }


def _printed(tables: dict[str, dict[str, list[str]]], above: str) -> list[str]:
    lines: list[str] = []
    for name, arrays in tables.items():
        filled = {key: texts for key, texts in arrays.items() if texts}
        if filled:
            lines += [f"[{above}{name}]", *(_array(key, texts) for key, texts in filled.items()), ""]
    return lines


def _array(key: str, texts: list[str]) -> str:
    return f"{key} = [\n" + "".join(f"    {_value(text)},\n" for text in texts) + "]"


def _value(value: str | int) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped (toml.io, v1.0.0, "String").
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
