"""The policy file: its shape, its reader and its printer."""

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.path_rule import PathRule
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import Source, parse_env
from nyx_stream.policy.terms import TERMS, LeaseTerms

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


class PolicyFile(Table):
    """A Nyx policy: what an operator grants to a plugin."""

    degrade: Literal["refuse", "allow"] = Field(
        default="refuse", description="Whether a process that cannot be sealed completely may run."
    )
    allow: AllowTable = AllowTable()
    deny: DenyTable = DenyTable()
    limits: LimitsTable = LimitsTable()  # type: ignore[valid-type]  # a class made at run time
    leases: LeasesTable = LeasesTable()  # type: ignore[valid-type]  # a class made at run time


def read_policy(path: str) -> dict[str, Any]:
    """Returns the fields of a `SandboxPolicy`; raises `PolicyError` with every fault, or `OSError`."""
    file = ConfigFile(path, PolicyFile)
    allow, deny = file.values.allow, file.values.deny
    fields = {
        "connect": file.rules(("allow", "connect"), allow.connect, ConnectRule.parse),
        "denied_connect": file.rules(("deny", "connect"), deny.connect, ConnectRule.parse),
        "request": file.rules(("allow", "request"), allow.request, RequestRule.parse),
        "denied_request": file.rules(("deny", "request"), deny.request, RequestRule.parse),
        "paths": read_paths(file, "allow", allow.read, allow.write),
        "denied_paths": file.rules(("deny", "path"), deny.path, parse_writable),
        "env": file.rules(("allow", "env"), allow.env, parse_env),
        "limits": file.limits(("limits",), file.values.limits),
        "leases": _read_leases(file),
        "degrade": file.values.degrade,
    }
    file.finish()
    return fields


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


def read_paths(file: ConfigFile[Any], table: str, read: list[str], write: list[str]) -> tuple[PathRule, ...]:
    """Returns the path rules of the arrays `read` and `write` of one table."""
    readable = file.rules((table, "read"), read, parse_readable)
    return readable + file.rules((table, "write"), write, parse_writable)


def parse_readable(text: str, source: Source | None = None) -> PathRule:
    """Reads a prefix of mode `r`."""
    return PathRule.parse(text, "r", source)


def parse_writable(text: str, source: Source | None = None) -> PathRule:
    """Reads a prefix of mode `rw`."""
    return PathRule.parse(text, "rw", source)


def print_policy(policy: "SandboxPolicy") -> str:
    """Returns the text of a file that `read_policy` reads back as an equal policy."""
    tables: dict[str, dict[str, list[str]]] = {
        "allow": {
            "connect": [rule.text for rule in policy.connect],
            "request": [rule.text for rule in policy.request],
            "read": [rule.text for rule in policy.paths if rule.mode == "r"],
            "write": [rule.text for rule in policy.paths if rule.mode == "rw"],
            "env": list(policy.env),
        },
        "deny": {
            "connect": [rule.text for rule in policy.denied_connect],
            "request": [rule.text for rule in policy.denied_request],
            "path": [rule.text for rule in policy.denied_paths],
        },
    }
    lines: list[str] = [] if policy.degrade == "refuse" else [f"degrade = {_value(policy.degrade)}", ""]
    for name, arrays in tables.items():
        filled = {key: texts for key, texts in arrays.items() if texts}
        if filled:
            lines += [f"[{name}]", *(_array(key, texts) for key, texts in filled.items()), ""]
    lines += ["[limits]", *(f"{key} = {_value(value)}" for key, value in policy.limits.printed().items()), ""]
    for terms in policy.leases:
        lines += [f"[leases.{terms.capability}]"]
        lines += [*(f"{key} = {_value(value)}" for key, value in terms.printed().items()), ""]
    return "\n".join(lines)


def _array(key: str, texts: list[str]) -> str:
    return f"{key} = [\n" + "".join(f"    {_value(text)},\n" for text in texts) + "]"


def _value(value: str | int) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped (toml.io, v1.0.0, "String").
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
