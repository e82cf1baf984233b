"""`nyx approve`: compares a plugin with a lock file, and accepts its version and content."""

from typing import Annotated

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.options import Json, PluginArgument
from nyx_stream.host import find
from nyx_stream.host.lockfile.file import LockFile
from nyx_stream.host.lockfile.verification import accept, verify_source
from nyx_stream.text import escape


def approve(
    plugin: PluginArgument,
    lock: Annotated[str, typer.Option(help="The lock file of the host.")],
    show: Annotated[
        bool, typer.Option("--show", help="Only show what would be accepted; exit code 1 if an update is pending.")
    ] = False,
    json: Json = False,
) -> int:
    """Accept a plugin's version and content in a lock file.

    Approvals that were given for other content are removed.
    """
    source, file = find(plugin), LockFile(lock)
    verdict = verify_source(source, file.read().get(source.manifest.id)) if show else accept(file, source)
    name, found, known = source.manifest.id, verdict.found, verdict.known
    code = ExitCode.DENIED if show and verdict.refused is not None else ExitCode.OK
    same_content = known is None or known.content == found.content
    removed = [] if known is None or same_content else [f"{item.kind} {escape(item.rule)}" for item in known.approvals]
    if json:
        output.print_json(
            {
                "plugin": name,
                "accepted": not show,
                "version": found.version,
                "content": found.content,
                "before": None if known is None else {"version": known.version, "content": known.content},
                "more": [item.model_dump() for item in verdict.more],
                "refused": verdict.refused,
                "forgotten": len(removed),
            }
        )
        return code
    if known is not None:
        output.print_text(f"recorded: {name} {known.version}, {known.content}")
    output.print_text(f"{'found' if show else 'accepted'}: {name} {found.version}, {found.content}")
    for item in verdict.more:
        output.print_text(f"  wants more: {item.kind} {escape(item.rule)}")
    for text in removed:
        output.print_text(f"  approval {'to be removed' if show else 'removed'}, given for other content: {text}")
    if show and verdict.refused is not None:
        output.print_text(f"  pending: {verdict.refused}")
    return code
