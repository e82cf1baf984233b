"""Reads the part of the profile language that Nyx writes, and decides like seatbelt: the last matching rule counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


Form = str | list["Form"]
TOKEN = re.compile(r'\s*(?:(?P<open>\()|(?P<close>\))|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[^\s()"]+))')


def read(profile: str) -> list[list[Form]]:
    """The rules of a profile; raises `ValueError` for unbalanced parentheses."""
    stack: list[list[Form]] = [[]]
    at = 0
    while profile[at:].strip():
        token = TOKEN.match(profile, at)
        if token is None:
            raise ValueError(f"cannot read {profile[at : at + 40]!r}")
        at = token.end()
        if token["open"]:
            stack.append([])
        elif token["close"]:
            done = stack.pop()
            stack[-1].append(done)
        elif token["text"]:
            stack[-1].append('"' + re.sub(r"\\(.)", r"\1", token["text"][1:-1]))
        else:
            stack[-1].append(token["word"])
    if len(stack) != 1:
        raise ValueError("a parenthesis is not closed")
    return [rule for rule in stack[0] if isinstance(rule, list)]


def allows(profile: str, operation: str, **target: str) -> bool:
    """Whether `profile` allows `operation` on `target`: `path=`, `tcp=` or `name=`."""
    verdict = False
    for rule in read(profile):
        verb, subject, *filters = rule
        if verb == "version" or not isinstance(subject, str):
            continue
        if not (subject == "default" or _names(subject, operation)):
            continue
        if not filters or any(isinstance(entry, list) and _fits(entry, target) for entry in filters):
            verdict = verb == "allow"
    return verdict


def _names(pattern: str, operation: str) -> bool:
    return operation.startswith(pattern[:-1]) if pattern.endswith("*") else operation == pattern


def _fits(entry: Sequence[Form], target: dict[str, str]) -> bool:
    kind, value = entry[0], entry[-1]
    if not isinstance(value, str):
        return False
    text = value.removeprefix('"')
    path = target.get("path", "")
    if kind == "subpath":
        return path == text or path.startswith(text.rstrip("/") + "/")
    if kind == "literal":
        return path == text
    if kind in ("remote", "local"):
        return text == f"*:{target.get('tcp')}"
    if kind in ("global-name", "ipc-posix-name"):
        return target.get("name") == text
    if kind == "target":
        return target.get("name") == text
    raise ValueError(f"a filter that is not known here: {kind}")
