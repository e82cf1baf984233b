"""Explains a denial and names the smallest change that would allow the target.

The text is built from the rules of policy and manifest alone, never from the target: a plugin must not be able to write
the rule that an operator is asked to copy.
"""

from itertools import chain, islice

from nyx_stream.guard.compiled_policy import CompiledPolicy
from nyx_stream.guard.url_parts import UrlError, read_url
from nyx_stream.policy import ConnectRule
from nyx_stream.policy.hosts import HostError, canonical_host
from nyx_stream.policy.rules import METHOD, NEVER_METHODS, Rule, path_key
from nyx_stream.text import escape

_MAX_RULES = 3
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
    return _lines(rules, "connect", denied, [*rules.allowed.hosts.near(name)], asked)


def explain_request(rules: CompiledPolicy, method: object, url: object) -> str:
    """Returns the lines below a denied request, or nothing if no rule could allow it."""
    try:
        parts = read_url(url)
    except UrlError:
        return ""
    verb = method.upper() if type(method) is str else ""
    if rules.request(method, url).decision.allowed or verb in NEVER_METHODS or not METHOD.fullmatch(verb):
        return ""
    origin = (parts.scheme, parts.host, parts.port)
    denied = rules.denied.hosts.match(parts.host, parts.port) or rules.denied.requests.deny(origin, verb, parts.path)
    asked = rules.asked.allows_request((origin, verb, parts.path)) if rules.asked else None
    near: list[Rule] = [*islice(chain.from_iterable(rules.allowed.requests.at(origin)), _MAX_RULES)]
    near += rules.allowed.hosts.near(parts.host)
    # A permission that the manifest asks for by a connect rule is granted by a connect rule.
    kind = "connect" if isinstance(asked, ConnectRule) else "request"
    return _lines(rules, kind, denied, near, asked)


def explain_path(rules: CompiledPolicy, normal: str, mode: str) -> str:
    """Returns the lines below a denied path, given in normal form."""
    if not normal:
        return ""
    key = path_key(normal, rules.flavour)
    denied = rules.denied.paths.covering(key)
    asked = rules.asked.allows_path((key, "r" if mode == "r" else "rw")) if rules.asked else None
    near = rules.allowed.paths.covering(key)
    return _lines(rules, "read" if mode == "r" else "write", denied, [near] if near else [], asked)


def _lines(rules: CompiledPolicy, kind: str, denied: Rule | None, near: list[Rule], asked: Rule | None) -> str:
    lines = [f"  denied:  {_cited(denied)}"] if denied is not None else []
    lines += [f"  granted: {_cited(rule)}" for rule in near[:_MAX_RULES]] or ["  granted: nothing near it"]
    if rules.manifest is None:
        return "\n".join(lines)
    if asked is not None:
        lines.append(f"  asked:   {_cited(asked, rules.manifest.reason(kind, asked))}")
    return "\n".join([*lines, f"  fix:     {_fix(kind, denied, near, asked)}"])


def _fix(kind: str, denied: Rule | None, near: list[Rule], asked: Rule | None) -> str:
    if asked is None:
        return "no grant can allow it: the plugin's manifest does not ask for it"
    if denied is not None:
        at = f"at {denied.source}" if denied.source is not None else escape(denied.text)
        return f"only the operator can: take back the deny rule {at}"
    widened = next((rule for rule in near if rule.source is not None), None)
    if widened is not None:
        return f"widen {widened.source} to what {asked.source or 'the manifest'} asks"
    return f'add to the policy, below [allow]: {kind} = ["{escape(asked.text)}"]'


def _cited(rule: Rule, why: str | None = None) -> str:
    details = [str(rule.source)] if rule.source is not None else []
    details += [f'"{escape(why, 200)}"'] if why else []
    text = escape(rule.text)
    return f"{text:<{_COLUMN}} ({', '.join(details)})" if details else text
