"""`nyx approve`: what lies where a plugin is loaded from, beside what a lock file has accepted; and accepting it."""

from typing import Annotated

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.host import find
from nyx_stream.host.lockfile.file import LockFile
from nyx_stream.host.lockfile.verification import LockVerdict, accept, verify_source
from nyx_stream.text import escape


def approve(
    plugin: Annotated[str, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")],
    lock: Annotated[str, typer.Option(help="The lock file of the host.")],
    show: Annotated[
        bool, typer.Option("--show", help="Only say what would be accepted; 1 if something waits.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Accept a plugin's version and content in a lock file, and forget what was approved of another content."""
    source, file = find(plugin), LockFile(lock)
    verdict = verify_source(source, file.read().get(source.manifest.id)) if show else accept(file, source)
    name = source.manifest.id
    if json:
        output.say_json(_document(name, verdict, accepted=not show))
    else:
        _print(name, verdict, accepted=not show)
    return ExitCode.DENIED if show and verdict.refused is not None else ExitCode.OK


def _document(name: str, verdict: LockVerdict, *, accepted: bool) -> dict[str, object]:
    known = verdict.known
    return {
        "plugin": name,
        "accepted": accepted,
        "version": verdict.found.version,
        "content": verdict.found.content,
        "before": None if known is None else {"version": known.version, "content": known.content},
        "more": [item.model_dump() for item in verdict.more],
        "refused": verdict.refused,
        "forgotten": len(_forgotten(verdict)),
    }


def _print(name: str, verdict: LockVerdict, *, accepted: bool) -> None:
    found, known = verdict.found, verdict.known
    if known is not None:
        output.say(f"recorded: {name} {known.version}, {known.content}")
    output.say(f"{'accepted' if accepted else 'found'}: {name} {found.version}, {found.content}")
    for item in verdict.more:
        output.say(f"  wants more: {item.kind} {escape(item.rule)}")
    for text in _forgotten(verdict):
        output.say(f"  approved of the recorded content, {'forgotten' if accepted else 'to be forgotten'}: {text}")
    if not accepted and verdict.refused is not None:
        output.say(f"  waits: {verdict.refused}")


def _forgotten(verdict: LockVerdict) -> list[str]:
    if verdict.known is None or verdict.known.content == verdict.found.content:
        return []
    return [f"{item.kind} {escape(item.rule)}" for item in verdict.known.approvals]
