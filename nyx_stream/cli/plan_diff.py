"""`nyx plan --diff`: what changes between two manifests or two policies, and whether the new one wants more."""

import os
import tomllib
from collections.abc import Sequence
from typing import Any

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.host import find
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.difference import Change, difference, wants_more
from nyx_stream.policy.manifest import FILE_NAME, Manifest
from nyx_stream.text import escape


def plan_diff(old: str, new: str, *, json: bool) -> int:
    """Prints the changes; returns the exit code: whether `new` wants more."""
    one, other = _read(old), _read(new)
    if isinstance(one, Manifest) != isinstance(other, Manifest):
        raise typer.BadParameter(f"two manifests or two policies can be compared: {_name(one)} and {_name(other)}")
    changes = difference(one, other)
    more = wants_more(changes)
    if json:
        output.say_json(
            {
                "old": _document(old, one),
                "new": _document(new, other),
                "wants_more": more,
                "changes": [_change(change) for change in changes],
            }
        )
    else:
        _print(old, one, new, other, changes)
    return ExitCode.DENIED if more else ExitCode.OK


def _read(where: str) -> Manifest | SandboxPolicy:
    """A folder or an installed plugin is its manifest; a file with an entry point is one, any other a policy."""
    if not os.path.isfile(where):
        return find(where).manifest
    with open(where, "rb") as file:
        try:
            is_manifest = "entry" in tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):  # told with its place by whoever reads it
            is_manifest = os.path.basename(where) == FILE_NAME
    return Manifest.from_toml(where) if is_manifest else SandboxPolicy.from_toml(where)


def _name(given: Manifest | SandboxPolicy) -> str:
    return f"the manifest of {given.id} {given.version}" if isinstance(given, Manifest) else "a policy"


def _document(where: str, given: Manifest | SandboxPolicy) -> dict[str, Any]:
    if isinstance(given, Manifest):
        return {"kind": "manifest", "from": where, "id": given.id, "version": given.version}
    return {"kind": "policy", "from": where}


def _change(change: Change) -> dict[str, Any]:
    return {
        "section": change.section,
        "kind": change.kind,
        "what": change.what,
        "old": change.old,
        "new": change.new,
        "more": change.more,
        "at": None if change.at is None else str(change.at),
    }


def _print(
    old: str, one: Manifest | SandboxPolicy, new: str, other: Manifest | SandboxPolicy, changes: Sequence[Change]
) -> None:
    output.say(f"old: {_name(one)} ({escape(old)})")
    output.say(f"new: {_name(other)} ({escape(new)})\n")
    if not changes:
        output.say("Nothing changes.")
        return
    output.table(
        ("CHANGE", "SECTION", "KIND", "OLD", "NEW", "MORE", "AT"),
        (
            (
                change.what,
                change.section,
                change.kind,
                change.old or "-",
                change.new or "-",
                "more" if change.more else "-",
                "-" if change.at is None else str(change.at),
            )
            for change in changes
        ),
    )
    wanting = sum(change.more for change in changes)
    output.say(f"\nWants more by {wanting} of {len(changes)} changes." if wanting else "\nWants no more.")
