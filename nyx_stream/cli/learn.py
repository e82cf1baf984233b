"""`nyx learn`: one call with all that the plugin asks for on trial, and the smallest policy for what it did."""

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from nyx_stream.audit import AuditEvent
from nyx_stream.cli import output
from nyx_stream.cli.interrupts import run_async
from nyx_stream.cli.isolation import IsolationOption
from nyx_stream.cli.log import audit_sink
from nyx_stream.cli.places import places_of
from nyx_stream.cli.run import parse_arguments
from nyx_stream.errors import NyxError
from nyx_stream.guard.policy_learner import learn_policy, report_only_policy
from nyx_stream.host import PluginHost, find
from nyx_stream.isolation.backend import Level
from nyx_stream.text import escape


@dataclass
class _Seen:
    """What the plugin did, and how its call ended if it failed."""

    events: list[AuditEvent] = field(default_factory=list)
    error: NyxError | None = None


def learn(
    plugin: Annotated[str, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")],
    method: Annotated[str, typer.Argument(help="The exported method.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="key=value; a value is JSON, or else text.")] = None,
    isolation: Annotated[IsolationOption, typer.Option(help="Where it runs.")] = IsolationOption.inline,
    data_dir: Annotated[str | None, typer.Option(help="The host's data directory.")] = None,
    audit: Annotated[str | None, typer.Option(help="Append every decision to this audit log.")] = None,
) -> None:
    """Really call a method, let pass whatever the plugin asks for, and print the smallest policy that covers it."""
    source = find(plugin)
    values = parse_arguments(arguments or ())
    seen = run_async(_watch(plugin, method, values, isolation.value, data_dir, audit))
    places = places_of(source.manifest.id, source.folder, data_dir)
    policy = learn_policy(seen.events, source.manifest, places)
    output.say(f"# What {source.manifest.id} {source.manifest.version} did in one call of {escape(method)}.")
    for line in dict.fromkeys(_denied(event) for event in seen.events if not event.allowed and event.layer != "host"):
        output.say(f"# Denied, and no policy allows it: {line}")
    if policy.env:
        output.say("# Variables are those that it asks for: reading one is not recorded.")
    output.say(policy.to_toml(limits=False).rstrip() or "# It needs nothing.")
    if seen.error is not None:
        raise seen.error


async def _watch(
    plugin: str, method: str, values: dict[str, Any], isolation: Level, data_dir: str | None, audit: str | None
) -> _Seen:
    seen = _Seen()
    async with audit_sink(audit) as sink:

        def both(event: AuditEvent) -> None:
            seen.events.append(event)
            sink(event)

        async with PluginHost(audit=both, data_dir=data_dir) as host:
            try:
                handle = await host.load(plugin, policy=report_only_policy(find(plugin).manifest), isolation=isolation)
                if not handle.methods.get(method, False):
                    await handle.call(method, **values)
                else:
                    async with aclosing(handle.stream(method, **values)) as results:
                        async for _ in results:
                            pass
            except NyxError as error:  # what it did until then is told nevertheless
                seen.error = error
    return seen


def _denied(event: AuditEvent) -> str:
    return f"{event.capability} {escape(event.action)} {escape(event.target)}: {escape(event.reason)}"
