"""`nyx run` and `nyx learn`: one call of one method, in a host that exists for that call."""

import json as json_module
import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer

from nyx_stream.audit import AuditEvent
from nyx_stream.cli import output
from nyx_stream.cli.interrupts import run_async
from nyx_stream.cli.log import audit_sink, log_grant
from nyx_stream.cli.options import (
    AuditFile,
    CallArguments,
    DataDir,
    Isolation,
    IsolationOption,
    MethodArgument,
    PluginArgument,
    PolicyFile,
    places_of,
)
from nyx_stream.errors import NyxError
from nyx_stream.guard.policy_learner import learn_policy, report_only_policy
from nyx_stream.host import Handle, PluginHost, find
from nyx_stream.isolation.backend import Level
from nyx_stream.text import escape


def _check_metrics(path: str | None) -> str | None:
    """Refuses `--metrics`, before anything runs, if the extra `prometheus` is missing."""
    if path is not None and find_spec("prometheus_client") is None:
        raise typer.BadParameter("prometheus-client is not installed: pip install 'nyx-sandbox[prometheus]'")
    return path


def run(
    plugin: PluginArgument,
    method: MethodArgument,
    policy: PolicyFile,
    arguments: CallArguments = None,
    isolation: Isolation = IsolationOption.inline,
    data_dir: DataDir = None,
    audit: AuditFile = None,
    metrics: Annotated[
        str | None, typer.Option(help="Write metrics to this file, for Prometheus.", callback=_check_metrics)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print each result on one line.")] = False,
) -> None:
    """Call a method of a plugin and print its result as JSON.

    The items of a stream are printed one per line.
    """
    values = parse_arguments(arguments or ())

    async def call() -> None:
        async with audit_sink(audit) as sink, PluginHost(audit=sink, data_dir=data_dir) as host:
            try:
                handle = await host.load(plugin, policy=policy, isolation=isolation.value)
                log_grant(handle.grant, isolation.value)
                async with aclosing(_results(handle, method, values)) as results:
                    async for result in results:
                        output.print_json(result, compact=json or handle.methods[method])
            finally:
                if metrics is not None:
                    _write_metrics(host, metrics)

    run_async(call())


def learn(
    plugin: PluginArgument,
    method: MethodArgument,
    arguments: CallArguments = None,
    isolation: Isolation = IsolationOption.inline,
    data_dir: DataDir = None,
    audit: AuditFile = None,
) -> None:
    """Call a method for real and print the smallest policy it needs.

    During the call everything that the manifest requests is allowed and recorded.
    """
    source = find(plugin)
    values = parse_arguments(arguments or ())
    events: list[AuditEvent] = []
    error = run_async(_observe(plugin, method, values, isolation.value, data_dir, audit, events.append))
    policy = learn_policy(events, source.manifest, places_of(source.manifest.id, source.folder, data_dir))
    output.print_text(f"# What {source.manifest.id} {source.manifest.version} did in one call of {escape(method)}.")
    denials = (_describe(event) for event in events if not event.allowed and event.layer != "host")
    for line in dict.fromkeys(denials):
        output.print_text(f"# Denied, and no policy can allow it: {line}")
    if policy.env:
        output.print_text("# The variables are all that it requests: reading one is not recorded.")
    output.print_text(policy.to_toml(limits=False).rstrip() or "# It needs nothing.")
    if error is not None:
        raise error


async def _observe(
    plugin: str,
    method: str,
    values: dict[str, Any],
    isolation: Level,
    data_dir: str | None,
    audit: str | None,
    observe: Callable[[AuditEvent], None],
) -> NyxError | None:
    """Calls a method under a report-only policy; returns the error if it failed, since the events still count."""
    async with audit_sink(audit) as sink, PluginHost(audit=[observe, sink], data_dir=data_dir) as host:
        try:
            report_only = report_only_policy(find(plugin).manifest)
            handle = await host.load(plugin, policy=report_only, isolation=isolation)
            async with aclosing(_results(handle, method, values)) as results:
                async for _ in results:
                    pass
        except NyxError as error:
            return error
    return None


def _describe(event: AuditEvent) -> str:
    return f"{event.capability} {escape(event.action)} {escape(event.target)}: {escape(event.reason)}"


async def _results(handle: Handle, method: str, values: dict[str, Any]) -> AsyncGenerator[Any, None]:
    """Yields the result of a call, or the items of a stream."""
    if not handle.methods.get(method, False):
        yield await handle.call(method, **values)
        return
    async with aclosing(handle.stream(method, **values)) as items:
        async for item in items:
            yield item


def _write_metrics(host: PluginHost, path: str) -> None:
    """Replaces the file in one step, so that a collector never reads half of it. Raises `OSError`."""
    from nyx_stream.observe.prometheus import prometheus_text

    text = prometheus_text(host)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".nyx-metrics-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp creates it with 0600, but the collector runs as another user
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of a call from texts `key=value`. A value that isn't JSON is used as text.

    Raises:
        typer.BadParameter: a text has another form, or a key is repeated.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise typer.BadParameter(f"an argument must be key=value, not {escape(text, 100)}")
        if key in values:
            raise typer.BadParameter(f"{key} is given twice")
        try:
            values[key] = json_module.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            values[key] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    # Python parses NaN and Infinity, but they aren't JSON (RFC 8259, section 6).
    raise ValueError(name)
