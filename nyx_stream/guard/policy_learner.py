"""The smallest policy for what a plugin was seen doing. Pure: it reads audit events, and never widens past a manifest.

Generalises with care: hosts are exact; a path that was asked for alone stays itself, several of one folder become
`folder/*`; a file becomes the folder that it lies in, where the manifest asks for that folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nyx_core.beneath.text import NATIVE, normalise
from nyx_stream.audit import AuditEvent
from nyx_stream.guard.guard import SandboxGuard
from nyx_stream.guard.url_parts import UrlError, UrlParts, read_url
from nyx_stream.policy import PathRule, Places, SandboxPolicy
from nyx_stream.policy.coverage import covers
from nyx_stream.policy.request_rule import DEFAULT_PORTS, RequestRule
from nyx_stream.policy.url_path import PathPattern, has_encoded_separator

if TYPE_CHECKING:
    from nyx_stream.policy.manifest import Manifest

_READING = frozenset({"read", "stat", "list"})


def trial_of(manifest: "Manifest") -> SandboxPolicy:
    """Returns a policy that grants nothing but variables, with all that a plugin asks for on trial."""
    asked = SandboxPolicy(connect=manifest.connect, request=manifest.request, paths=manifest.paths)
    return SandboxPolicy(env=manifest.env).report_only(asked)


def learn(events: Iterable[AuditEvent], manifest: "Manifest", places: Places) -> SandboxPolicy:
    """Returns a policy that grants what the allowed ones among `events` did, and little else.

    Reading a variable is no event: those that the manifest asks for are granted.
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
        seen.setdefault((_origin(parts), parts.path), set()).add(event.action)
    patterns: dict[str, set[str]] = {}
    for (origin, path), methods in seen.items():
        beside = [other for known, other in seen if known == origin]
        patterns.setdefault(origin + _pattern(origin, path, beside), set()).update(methods)
    return tuple(RequestRule.parse(f"{','.join(sorted(verbs))} {url}") for url, verbs in sorted(patterns.items()))


def _pattern(origin: str, path: str, paths: Sequence[str]) -> str:
    if has_encoded_separator(path) or "*" in path or RequestRule.parse(origin + path).path != PathPattern(path):
        return ""  # no rule with a path could say this one and no other
    folder = path.rpartition("/")[0]
    beside = [other for other in paths if other.rpartition("/")[0] == folder]
    return f"{folder}/*" if folder and len(beside) > 1 else path


def _origin(parts: UrlParts) -> str:
    host = f"[{parts.host}]" if ":" in parts.host else parts.host
    port = "" if parts.port == DEFAULT_PORTS[parts.scheme] else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def _addresses(policy: SandboxPolicy, events: Sequence[AuditEvent], manifest: "Manifest") -> list[str]:
    """Returns a connect rule for each address that a name led to and that only a rule of its own opens."""
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
        mode = "r" if event.action in _READING else "rw"
        texts = event.target.split(" -> ") if event.action == "rename" else [event.target]
        for text in texts:
            path = normalise(text if text.startswith("/") else f"{places['$DATA']}/{text}", NATIVE)
            itself = PathRule(path, "r" if mode == "r" else "rw")
            folder = itself if event.action == "list" else replace(itself, prefix=path.rpartition("/")[0] or "/")
            found.append(folder if any(covers(rule, folder) for rule in asked) else itself)
    needed = [rule for rule in dict.fromkeys(found) if not any(covers(o, rule) for o in found if o != rule)]
    shown = (replace(rule, prefix=_placed(rule.prefix, places)) for rule in needed)
    return tuple(sorted(shown, key=lambda rule: (rule.mode, rule.prefix)))


def _placed(path: str, places: Places) -> str:
    for name, folder in places.items():
        if path == folder or path.startswith(f"{folder}/"):
            return name + path[len(folder) :]
    return path
