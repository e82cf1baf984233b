"""The policy file: its tables, its reader, its printer and its JSON Schema."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from nyx_stream.policy.approval import KINDS, parse_target
from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.credential import Credential, parse_bound_rule, parse_header, parse_origin, parse_prefix
from nyx_stream.policy.limits import TERMS, LeaseTerms, Limits, parse_limit, parse_terms
from nyx_stream.policy.rules import ConnectRule, RequestRule, parse_env
from nyx_stream.policy.toml_source import Key

if TYPE_CHECKING:
    from nyx_stream.policy.sandbox_policy import SandboxPolicy


def _bounds_table(name: str, text: str, bounds: Iterable[str]) -> type[Table]:
    fields: dict[str, Any] = dict.fromkeys(bounds, (str | int | float, None))
    return create_model(name, __base__=Table, __doc__=text, **fields)


# Made from `Limits` and `TERMS`, so that the schema and the reader always agree with them.
LimitsTable = _bounds_table(
    "LimitsTable",
    'Sizes as "128MiB" or bytes, durations as "5s" or seconds, counts as whole numbers.',
    Limits.__dataclass_fields__,
)
_LEASES: dict[str, Any] = {
    capability: (
        _bounds_table(f"{capability.title()}LeaseTable", "How long and how much the capability may be used.", terms),
        Field(default=None),
    )
    for capability, terms in TERMS.items()
}
LeasesTable: type[Table] = create_model("LeasesTable", __base__=Table, __doc__="Leases, by capability.", **_LEASES)


class RuleLists(Table):
    """Allow rules, of the kinds that a guard decides on."""

    connect: list[str] = Field(
        default=[], description='Connect rules: "api.example.com", "*.example.com:443", "10.0.0.0/8".'
    )
    request: list[str] = Field(default=[], description='Request rules: "GET https://api.met.no/v1/**".')
    read: list[str] = Field(default=[], description="Path prefixes that may be read.")
    write: list[str] = Field(default=[], description="Path prefixes that may be read and written.")


class AllowTable(RuleLists):
    """What is granted."""

    env: list[str] = Field(default=[], description="Environment variables that may be read.")


class DenyTable(Table):
    """What is forbidden. A deny rule beats every allow rule."""

    connect: list[str] = Field(default=[], description="Connect rules.")
    request: list[str] = Field(default=[], description="Request rules; without methods, every method.")
    path: list[str] = Field(default=[], description="Path prefixes on which every operation is forbidden.")


class ReportAllowTable(RuleLists):
    """What is allowed and audited as a would-be denial, where no enforced rule allows it."""


class OnRequestTable(RuleLists):
    """What a plugin gets as soon as it asks, if its manifest marks it as optional."""


class RulesTable(Table):
    """Report-only rules: what they would deny is allowed, and audited as a would-be denial."""

    mode: Literal["report"] = Field(description="Put enforced rules into [allow] and [deny].")
    allow: ReportAllowTable = ReportAllowTable()
    deny: DenyTable = DenyTable()


class CredentialTable(Table):
    """A secret that the host adds, below the plugin, to the requests of a rule. It grants no request."""

    rule: str = Field(description='Request rule: "https://api.example.com/**".')
    header: str = Field(description='The header that carries it: "Authorization".')
    value: str = Field(description='Where the secret is: "env:NAME" or "file:/PATH". Never the secret itself.')
    prefix: str = Field(default="", description='The text sent before the secret: "Bearer ".')


class PolicyFile(Table):
    """A Nyx policy: what an operator grants to a plugin."""

    degrade: Literal["refuse", "allow"] = Field(
        default="refuse", description="Whether the plugin may run in a process that cannot be sealed completely."
    )
    allow: AllowTable = AllowTable()
    deny: DenyTable = DenyTable()
    on_request: OnRequestTable = OnRequestTable()
    limits: LimitsTable = LimitsTable()  # type: ignore[valid-type]  # a class made at run time
    leases: LeasesTable = LeasesTable()  # type: ignore[valid-type]  # a class made at run time
    credentials: list[CredentialTable] = Field(default=[])
    rules: list[RulesTable] = Field(default=[])


def policy_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a policy file."""
    return PolicyFile.model_json_schema()


def read_policy(path: str) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]:
    """Returns the fields of a `SandboxPolicy`, of its report-only policy and of its on-request policy, or `None`.

    Raises `PolicyError` with every fault, or `OSError`.
    """
    file = ConfigFile(path, PolicyFile)
    allow = file.values.allow
    leases = (_read_lease(file, capability) for capability in sorted(TERMS))
    fields = _rules(file, (), allow, file.values.deny) | {
        "env": file.rules(("allow", "env"), allow.env, parse_env),
        "limits": Limits(**file.bounds(("limits",), file.values.limits, parse_limit)),
        "leases": tuple(lease for lease in leases if lease is not None),
        "degrade": file.values.degrade,
        "credentials": _credentials(file),
    }
    report_only = [
        _rules(file, ("rules", index), table.allow, table.deny) for index, table in enumerate(file.values.rules)
    ]
    on_request = _allow_rules(file, ("on_request",), file.values.on_request)
    file.finish()
    return fields, _joined(report_only) if report_only else None, on_request if any(on_request.values()) else None


def _joined(tables: list[dict[str, Any]]) -> dict[str, Any]:
    joined = {name: tuple(rule for table in tables for rule in table[name]) for name in tables[0]}
    # Readable before writable, as the builder sorts them: a printed policy must read back equal.
    return joined | {"paths": tuple(sorted(joined["paths"], key=lambda rule: rule.mode))}


def _rules(file: ConfigFile[PolicyFile], key: Key, allow: RuleLists, deny: DenyTable) -> dict[str, Any]:
    return _allow_rules(file, (*key, "allow"), allow) | {
        "denied_connect": file.rules((*key, "deny", "connect"), deny.connect, ConnectRule.parse),
        "denied_request": file.rules((*key, "deny", "request"), deny.request, RequestRule.parse),
        "denied_paths": file.rules((*key, "deny", "path"), deny.path, partial(parse_target, "write")),
    }


def _allow_rules(file: ConfigFile[PolicyFile], key: Key, allow: RuleLists) -> dict[str, Any]:
    rules = {kind: file.rules((*key, kind), getattr(allow, kind), partial(parse_target, kind)) for kind in KINDS}
    return {"connect": rules["connect"], "request": rules["request"], "paths": rules["read"] + rules["write"]}


def _credentials(file: ConfigFile[PolicyFile]) -> tuple[Credential, ...]:
    found: list[Credential] = []
    for index, table in enumerate(file.values.credentials):
        key = ("credentials", index)
        rule = file.rule((*key, "rule"), table.rule, parse_bound_rule)
        header = file.rule((*key, "header"), table.header, parse_header)
        # If the operator wrote the secret itself here, the error must not copy it into a log.
        origin = file.rule((*key, "value"), table.value, parse_origin, secret=True)
        prefix = file.rule((*key, "prefix"), table.prefix, parse_prefix, secret=True)
        if rule is None or header is None or origin is None or prefix is None:
            continue
        found.append(Credential(rule, header, origin, prefix, rule.source))
        if found[-1].variable in file.values.allow.env:
            file.fault((*key, "rule"), f"{origin} is also in [allow] env: the plugin could read the secret there")
    return tuple(found)


def _read_lease(file: ConfigFile[PolicyFile], capability: str) -> LeaseTerms | None:
    table: Table | None = getattr(file.values.leases, capability)
    if table is None:
        return None
    terms = file.bounds(("leases", capability), table, lambda name, value: parse_terms(capability, {name: value})[name])
    return LeaseTerms(capability, **terms) if terms else None


def print_policy(policy: "SandboxPolicy", *, limits: bool = True) -> str:
    """Returns a text that `read_policy` reads back as an equal policy, with or without its limits."""
    lines = [] if policy.degrade == "refuse" else [f"degrade = {_value(policy.degrade)}", ""]
    lines += _table("[allow]", _allow_texts(policy) | {"env": [*policy.env]}) + _table("[deny]", _deny_texts(policy))
    if policy.on_request is not None:
        lines += _table("[on_request]", _allow_texts(policy.on_request))
    if limits:
        lines += _table("[limits]", policy.limits.printed())
    for terms in policy.leases:
        lines += _table(f"[leases.{terms.capability}]", terms.printed())
    for item in policy.credentials:
        values = {"rule": item.rule.text, "header": item.header, "value": item.origin, "prefix": item.prefix}
        lines += _table("[[credentials]]", values)
    if policy.report is not None:
        lines += _table("[[rules]]", {"mode": "report"})
        lines += _table("[rules.allow]", _allow_texts(policy.report))
        lines += _table("[rules.deny]", _deny_texts(policy.report))
    return "\n".join(lines)


def _allow_texts(policy: "SandboxPolicy") -> dict[str, list[str]]:
    return {
        "connect": [rule.text for rule in policy.connect],
        "request": [rule.text for rule in policy.request],
        "read": [rule.text for rule in policy.paths if rule.mode == "r"],
        "write": [rule.text for rule in policy.paths if rule.mode == "rw"],
    }


def _deny_texts(policy: "SandboxPolicy") -> dict[str, list[str]]:
    return {
        "connect": [rule.text for rule in policy.denied_connect],
        "request": [rule.text for rule in policy.denied_request],
        "path": [rule.text for rule in policy.denied_paths],
    }


def _table(header: str, values: Mapping[str, str | int | list[str]]) -> list[str]:
    """Returns the lines of a table without its empty values, or none if all are empty."""
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if value]
    return [header, *lines, ""] if lines else []


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, list):
        return "[\n" + "".join(f"    {_value(text)},\n" for text in value) + "]"
    # A JSON string is a TOML basic string, except that TOML requires DEL to be escaped (toml.io, v1.0.0, "String").
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
