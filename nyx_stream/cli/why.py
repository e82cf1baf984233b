"""`nyx why`: shows one decision of the guard with its rule, its reason, and the change that would allow it."""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.options import DataDir, Json, PolicyFile, expand, places_of
from nyx_stream.errors import SandboxDenied
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.host import find
from nyx_stream.policy import NO_PLACES, Places, SandboxPolicy
from nyx_stream.policy.manifest import Manifest
from nyx_stream.text import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nyx_stream.policy.rules import Rule


class QuestionKind(StrEnum):
    """What the question is about."""

    connect = "connect"
    request = "request"
    path = "path"


class AccessOption(StrEnum):
    """Access to a path: read only, or also write."""

    r = "r"
    rw = "rw"


@dataclass(frozen=True)
class _Answer:
    decision: Decision
    what: str
    target: str
    error: SandboxDenied


def why(
    kind: Annotated[QuestionKind, typer.Argument(help="connect HOST:PORT, request METHOD URL, or path PATH.")],
    target: Annotated[list[str], typer.Argument(help="The host and port, the method and URL, or the path.")],
    policy: PolicyFile,
    manifest: Annotated[str | None, typer.Option(help="A plugin.toml: what it does not request is denied.")] = None,
    plugin: Annotated[str | None, typer.Option(help="A plugin's folder or id, instead of --manifest.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="An IP address that the host resolves to; may be repeated.")
    ] = None,
    mode: Annotated[AccessOption, typer.Option(help="For a path: read only, or also write.")] = AccessOption.r,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Show whether a policy allows an action, and which rule decides.

    If it's denied, shows the change that would allow it. Opens and sends nothing.
    """
    guard, places = _guard(policy, manifest, plugin, data_dir)
    match kind:
        case QuestionKind.connect:
            (host_port,) = _exactly(1, target, "connect HOST:PORT")
            answer = _connect(guard, host_port, address)
        case QuestionKind.request:
            method, url = _exactly(2, target, "request METHOD URL")
            answer = _request(guard, method, url, address)
        case QuestionKind.path:
            (path,) = _exactly(1, target, "path PATH")
            answer = _path(guard, expand(path, places), mode)
    _print(guard, answer, _source(guard.policy.bind(places), answer.decision.rule), json)
    return ExitCode.OK if answer.decision.allowed else ExitCode.DENIED


def _guard(policy: str, manifest: str | None, plugin: str | None, data_dir: str | None) -> tuple[SandboxGuard, Places]:
    if manifest is not None and plugin is not None:
        raise typer.BadParameter("--manifest and --plugin cannot be combined")
    rules = SandboxPolicy.from_toml(policy)
    if manifest is None and plugin is None:
        return SandboxGuard(rules), NO_PLACES
    if plugin is not None:
        source = find(plugin)
        asked, folder = source.manifest, source.folder
    else:
        asked, folder = Manifest.from_toml(str(manifest)), os.path.dirname(str(manifest))
    places = places_of(asked.id, folder, data_dir)
    return SandboxGuard(rules, manifest=asked, places=places), places


def _exactly(count: int, target: list[str], form: str) -> list[str]:
    if len(target) != count:
        raise typer.BadParameter(f"expected: nyx why --policy FILE {form}")
    return target


def _connect(guard: SandboxGuard, target: str, addresses: list[str] | None) -> _Answer:
    host, colon, port = target.rpartition(":")
    # ASCII digits only: int() would also accept other digits and blanks.
    if not colon or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise typer.BadParameter("a connection must be HOST:PORT, as in api.example.com:443 or [::1]:8080")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    decision = guard.decide_connect(host, int(port))
    if addresses and decision.allowed:
        decision = guard.decide_addresses(host, int(port), addresses)
    return _Answer(decision, "connect", target, guard.connect_error(host, int(port), decision))


def _request(guard: SandboxGuard, method: str, url: str, addresses: list[str] | None) -> _Answer:
    verdict = guard.judge_request(method, url)
    decision = verdict.decision
    if addresses and decision.allowed:
        decision = guard.decide_addresses(verdict.host, verdict.port, addresses)
    return _Answer(decision, f"http {method}", url, guard.request_error(method, url, decision))


def _path(guard: SandboxGuard, path: str, mode: AccessOption) -> _Answer:
    verdict = guard.judge_path(path, mode.value)
    action = "read" if mode is AccessOption.r else "write"
    return _Answer(verdict.decision, f"files {action}", path, guard.path_error(verdict, action, path, mode.value))


def _print(guard: SandboxGuard, answer: _Answer, at: str | None, json: bool) -> None:
    decision = answer.decision
    if json:
        output.print_json(
            {
                "allowed": decision.allowed,
                "plugin": guard.plugin,
                "action": answer.what,
                "target": answer.target,
                "rule": decision.rule,
                "at": at,
                "reason": decision.reason,
                "hint": None if decision.allowed else answer.error.hint or None,
            }
        )
    elif decision.allowed:
        plugin = f"{guard.plugin}: " if guard.plugin else ""
        where = f" ({at})" if at else ""
        output.print_text(f"{plugin}{escape(answer.what)} {escape(answer.target)} allowed: {decision.reason}")
        output.print_text(f"  rule:    {escape(decision.rule or ''):<36}{where}".rstrip())
    else:
        output.print_text(str(answer.error))


def _source(policy: SandboxPolicy, text: str | None) -> str | None:
    """Returns the position of the deciding rule. Deny rules come first, since they decide first."""
    sides = (policy, policy.report) if policy.report is not None else (policy,)
    groups: tuple[Sequence[Rule], ...] = (
        *(rules for side in sides for rules in (side.denied_connect, side.denied_request, side.denied_paths)),
        *(rules for side in sides for rules in (side.request, side.connect, side.paths)),
    )
    found = (rule for rules in groups for rule in rules if rule.text == text and rule.source is not None)
    return next((str(rule.source) for rule in found), None)
