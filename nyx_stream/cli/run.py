"""`nyx run`: one call of one method, in a host that lives as long as the call."""

import json as json_text
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, NoReturn

import typer

from nyx_stream.cli import output
from nyx_stream.cli.interrupts import run_async
from nyx_stream.cli.isolation import IsolationOption
from nyx_stream.cli.log import audit_sink, log_grant
from nyx_stream.cli.metrics import check_metrics, write_metrics
from nyx_stream.host import Handle, PluginHost
from nyx_stream.isolation.backend import Level
from nyx_stream.text import escape


def run(
    plugin: Annotated[str, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")],
    method: Annotated[str, typer.Argument(help="The exported method.")],
    policy: Annotated[str, typer.Option(help="The policy file.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="key=value; a value is JSON, or else text.")] = None,
    isolation: Annotated[IsolationOption, typer.Option(help="Where it runs.")] = IsolationOption.inline,
    data_dir: Annotated[str | None, typer.Option(help="The host's data directory.")] = None,
    audit: Annotated[str | None, typer.Option(help="Append every decision to this audit log.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Write what was measured to this file, for Prometheus.", callback=check_metrics)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print each result on one line.")] = False,
) -> None:
    """Call a method of a plugin under a policy and print its result as JSON; of a stream, one result per line."""
    values = parse_arguments(arguments or ())
    run_async(_run(plugin, method, values, policy, isolation.value, data_dir, audit, metrics, json))


async def _run(
    plugin: str,
    method: str,
    values: dict[str, Any],
    policy: str,
    isolation: Level,
    data_dir: str | None,
    audit: str | None,
    metrics: str | None,
    compact: bool,
) -> None:
    async with audit_sink(audit) as sink, PluginHost(audit=sink, data_dir=data_dir) as host:
        try:
            handle = await host.load(plugin, policy=policy, isolation=isolation)
            log_grant(handle.grant, isolation)
            await _call(handle, method, values, compact)
        finally:
            if metrics is not None:
                write_metrics(host, metrics)


async def _call(handle: Handle, method: str, values: dict[str, Any], compact: bool) -> None:
    if not handle.methods.get(method, False):
        output.say_json(await handle.call(method, **values), compact=compact)
        return
    async with aclosing(handle.stream(method, **values)) as results:
        async for result in results:
            output.say_json(result, compact=True)


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of a call from texts `key=value`; a value that is no JSON is itself.

    Raises:
        typer.BadParameter: a text has another form, or a key comes twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise typer.BadParameter(f"an argument is key=value, not {escape(text, 100)}")
        if key in values:
            raise typer.BadParameter(f"{key} is given twice")
        values[key] = _value(value)
    return values


def _value(text: str) -> Any:
    try:
        return json_text.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(name: str) -> NoReturn:
    # NaN and Infinity are no JSON (RFC 8259, section 6), though Python reads them.
    raise ValueError(name)
