"""Why a denial, and the smallest change that would allow it.

Built from the rules of policy and manifest alone, never from a target seen at run time: a plugin must not be able to
write the rule that an operator is asked to copy.
"""

from collections.abc import Iterable
from itertools import chain, islice

from nyx_stream.guard.request_table import PathRules
from nyx_stream.guard.rules import Rules
from nyx_stream.guard.ruleset import CompiledPolicy
from nyx_stream.guard.url_parts import UrlError, read_url
from nyx_stream.policy import ConnectRule, PathRule, RequestRule
from nyx_stream.policy.hosts import HostError, canonical_host
from nyx_stream.policy.path_rule import path_key
from nyx_stream.policy.request_rule import METHOD, NEVER_METHODS
from nyx_stream.text import escape

Rule = ConnectRule | RequestRule | PathRule

_SHOWN = 3
_COLUMN = 36


def explain_connect(rules: CompiledPolicy, host: object, port: object) -> str:
    """Returns the lines below a denied connection."""
    try:
        name = canonical_host(host) if type(host) is str else ""
        number = port if type(port) is int else 0
    except HostError:
        return ""
    denied = rules.denied.hosts.match(name, number) if name else None
    asked = rules.asked.hosts.match(name, number) if rules.asked and name else None
    return _lines(rules, "connect", denied, _near_host(rules.allowed, name), asked)


def explain_request(rules: CompiledPolicy, method: object, url: object) -> str:
    """Returns the lines below a denied request."""
    try:
        parts = read_url(url)
    except UrlError:
        return ""
    verb = method.upper() if type(method) is str else ""
    if rules.request(method, url).decision.allowed or verb in NEVER_METHODS or not METHOD.fullmatch(verb):
        return ""  # refused for something else than what it asks for: no rule would help
    origin = (parts.scheme, parts.host, parts.port)
    denied = rules.denied.hosts.match(parts.host, parts.port) or rules.denied.requests.deny(origin, verb, parts.path)
    asked = rules.asked.allows_request(origin, verb, parts.path) if rules.asked else None
    near = [*_first(rules.allowed.requests.at(origin)), *_near_host(rules.allowed, parts.host)]
    # What is asked by a connect rule is granted by one: it is no line for `request`.
    kind = "connect" if isinstance(asked, ConnectRule) else "request"
    return _lines(rules, kind, denied, near, asked)


def explain_path(rules: CompiledPolicy, normal: str, mode: str) -> str:
    """Returns the lines below a denied path, given in normal form."""
    if not normal:
        return ""
    key = path_key(normal, rules.flavour)
    denied = rules.denied.paths.covering(key)
    asked = rules.asked.allows_path(key, "r" if mode == "r" else "rw") if rules.asked else None
    near = rules.allowed.paths.covering(key)
    kind = "read" if mode == "r" else "write"
    return _lines(rules, kind, denied, [near] if near else [], asked)


def _near_host(allowed: Rules, host: str) -> list[Rule]:
    return [*allowed.hosts.at(host)]


def _first(tables: Iterable[PathRules]) -> list[Rule]:
    return [*islice(chain.from_iterable(tables), _SHOWN)]


def _lines(rules: CompiledPolicy, kind: str, denied: Rule | None, near: list[Rule], asked: Rule | None) -> str:
    lines = [f"  denied:  {_cited(denied)}"] if denied is not None else []
    lines += [f"  granted: {_cited(rule)}" for rule in near[:_SHOWN]] or ["  granted: nothing near it"]
    if rules.manifest is None:
        return "\n".join(lines)
    if asked is not None:
        said = "connect" if isinstance(asked, ConnectRule) else kind
        lines.append(f"  asked:   {_cited(asked, rules.manifest.reason(said, asked))}")
    return "\n".join([*lines, f"  fix:     {_fix(kind, denied, near, asked)}"])


def _fix(kind: str, denied: Rule | None, near: list[Rule], asked: Rule | None) -> str:
    if asked is None:
        return "no grant can allow it: the plugin's manifest does not ask for it"
    if denied is not None:
        return f"only the operator can: take back the deny rule{_at(denied)}"
    widened = next((rule for rule in near if rule.source is not None), None)
    if widened is not None:
        return f"widen {widened.source} to what {asked.source or 'the manifest'} asks"
    return f"add to the policy, below [allow]: {kind} = [{_quoted(asked)}]"


def _cited(rule: Rule, why: str | None = None) -> str:
    said = [str(rule.source)] if rule.source is not None else []
    said += [f'"{escape(why, 200)}"'] if why else []
    text = escape(rule.text)
    return f"{text:<{_COLUMN}} ({', '.join(said)})" if said else text


def _at(rule: Rule) -> str:
    return f" at {rule.source}" if rule.source is not None else f" {escape(rule.text)}"


def _quoted(rule: Rule) -> str:
    return f'"{escape(rule.text)}"'
