"""The policy learner: the smallest policy that allows what a plugin was seen doing.

It reads audit events and never grants more than the manifest asks for. It generalises cautiously. Hosts stay exact. One
path of a folder stays itself, several become `folder/*`. A file becomes its folder if the manifest asks for the folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nyx_core.beneath.text import NATIVE, normalise
from nyx_stream.audit import AuditEvent
from nyx_stream.guard.guard import SandboxGuard
from nyx_stream.guard.url_parts import UrlError, read_url
from nyx_stream.policy import PathRule, Places, SandboxPolicy
from nyx_stream.policy.coverage import covers
from nyx_stream.policy.rules import RequestRule
from nyx_stream.policy.url_path import PathPattern, has_encoded_separator

if TYPE_CHECKING:
    from nyx_stream.policy.manifest import Manifest

_READING = frozenset({"read", "stat", "list"})


def report_only_policy(manifest: "Manifest") -> SandboxPolicy:
    """Returns a policy that grants only variables, with everything that the manifest asks for as report-only rules."""
    asked = SandboxPolicy(connect=manifest.connect, request=manifest.request, paths=manifest.paths)
    return SandboxPolicy(env=manifest.env).report_only(asked)


def learn_policy(events: Iterable[AuditEvent], manifest: "Manifest", places: Places) -> SandboxPolicy:
    """Returns a policy that grants what the allowed ones among `events` did, and little else.

    Reading a variable is not audited, so the policy grants all variables that the manifest asks for.
    """
    done = [event for event in events if event.allowed and event.layer == "guard"]
    requests = _requests([event for event in done if event.capability == "http"])
    paths = _paths([event for event in done if event.capability == "files"], manifest, places)
    policy = SandboxPolicy(request=requests, paths=paths, env=manifest.env)
    return policy.allow_connect_host(*_addresses(policy, done, manifest))


def _requests(events: Sequence[AuditEvent]) -> tuple[RequestRule, ...]:
    seen: dict[tuple[str, str], set[str]] = {}
    for event in events:
        try:
            parts = read_url(event.target)
        except UrlError:
            continue
        origin = RequestRule(parts.scheme, parts.host, parts.port).text
        seen.setdefault((origin, parts.path), set()).add(event.action)
    patterns: dict[str, set[str]] = {}
    for (origin, path), methods in seen.items():
        paths = [other for other_origin, other in seen if other_origin == origin]
        patterns.setdefault(origin + _pattern(origin, path, paths), set()).update(methods)
    return tuple(RequestRule.parse(f"{','.join(sorted(verbs))} {url}") for url, verbs in sorted(patterns.items()))


def _pattern(origin: str, path: str, paths: Sequence[str]) -> str:
    if has_encoded_separator(path) or "*" in path or RequestRule.parse(origin + path).path != PathPattern(path):
        return ""  # no rule can match this path alone
    folder = path.rpartition("/")[0]
    siblings = [other for other in paths if other.rpartition("/")[0] == folder]
    return f"{folder}/*" if folder and len(siblings) > 1 else path


def _addresses(policy: SandboxPolicy, events: Sequence[AuditEvent], manifest: "Manifest") -> list[str]:
    """Returns a connect rule for each address that a name resolved to, if the name's rule doesn't allow it."""
    guard, found = SandboxGuard(policy, manifest=manifest), dict[str, None]()
    for event in events:
        endpoint, _, address = event.target.partition(" at ")
        host, _, port = endpoint.rpartition(":")
        if event.capability != "connect" or not address or not port.isdecimal():
            continue
        if not guard.decide_addresses(host.strip("[]"), int(port), [address]).allowed:
            found[f"[{address}]:{port}" if ":" in address else f"{address}:{port}"] = None
    return list(found)


def _paths(events: Sequence[AuditEvent], manifest: "Manifest", places: Places) -> tuple[PathRule, ...]:
    asked, found = manifest.bind(places).paths, list[PathRule]()
    for event in events:
        texts = event.target.split(" -> ") if event.action == "rename" else [event.target]
        for text in texts:
            path = normalise(text if text.startswith("/") else f"{places['$DATA']}/{text}", NATIVE)
            itself = PathRule(path, "r" if event.action in _READING else "rw")
            folder = itself if event.action == "list" else replace(itself, prefix=path.rpartition("/")[0] or "/")
            found.append(folder if any(covers(rule, folder) for rule in asked) else itself)
    needed = [rule for rule in dict.fromkeys(found) if not any(covers(o, rule) for o in found if o != rule)]
    rules = (replace(rule, prefix=_with_variable(rule.prefix, places)) for rule in needed)
    return tuple(sorted(rules, key=lambda rule: (rule.mode, rule.prefix)))


def _with_variable(path: str, places: Places) -> str:
    for name, folder in places.items():
        if path == folder or path.startswith(f"{folder}/"):
            return name + path[len(folder) :]
    return path
