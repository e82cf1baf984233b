"""`nyx check`: a plugin's manifest against its code, read as syntax. Nothing of the plugin is imported or run."""

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.source_scan import Scan, Url, scan_folder
from nyx_stream.guard import SandboxGuard
from nyx_stream.host import find
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.manifest import FILE_NAME, Manifest
from nyx_stream.text import escape


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: it would fail when run. `warning`: it is not needed, or cannot be told from the text."""

    severity: Literal["error", "warning"]
    at: str
    message: str


def check(
    plugin: Annotated[str, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check a plugin: its manifest, its entry point, and its permissions against what its code uses."""
    source = find(plugin)
    manifest, scan = source.manifest, scan_folder(source.folder, source.root)
    findings = [
        *_broken(scan),
        *_entry(manifest, scan),
        *_permissions(manifest, scan),
        *_urls(manifest, scan),
        *_bypasses(scan),
    ]
    errors = sum(finding.severity == "error" for finding in findings)
    if json:
        output.say_json({"plugin": manifest.id, "ok": not errors, "findings": [asdict(found) for found in findings]})
    else:
        for found in findings:
            output.say(f"{escape(found.at)}: {found.severity}: {found.message}")
        files = len(scan.trees)
        verdict = (
            f"{errors} error{'' if errors == 1 else 's'}, {len(findings) - errors} to look at" if findings else "ok"
        )
        output.say(f"{manifest.id} {manifest.version}: {verdict} ({files} file{'' if files == 1 else 's'} read)")
    return ExitCode.DENIED if errors else ExitCode.OK


def _broken(scan: Scan) -> Iterator[Finding]:
    for place, message in scan.broken:
        yield Finding("error", str(place), escape(message))


def _entry(manifest: Manifest, scan: Scan) -> Iterator[Finding]:
    module, _, name = manifest.entry.partition(":")
    stem = module.replace(".", "/")
    file = next((file for file in (f"{stem}.py", f"{stem}/__init__.py") if file in scan.trees), None)
    if file is None:
        if not any(place.file.startswith(stem) for place, _ in scan.broken):
            yield Finding("error", FILE_NAME, f"entry: there is no {stem}.py and no {stem}/__init__.py")
        return
    found = next((node for node in scan.trees[file].body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        imported = any(
            (alias.asname or alias.name) == name
            for node in scan.trees[file].body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        )
        kind: Literal["error", "warning"] = "warning" if imported else "error"
        yield Finding(
            kind, file, f"entry: the class {name} is {'imported; not looked at' if imported else 'not there'}"
        )
        return
    at = f"{file}:{found.lineno}"
    if not found.bases:
        yield Finding("error", at, f"entry: {name} is no subclass of Plugin")
    if not any(_is_exported(node) for node in ast.walk(found)):
        yield Finding(
            "warning", at, f"entry: {name} exports no method of its own: mark what a host may call with @export"
        )


def _is_exported(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    names = (mark.func if isinstance(mark, ast.Call) else mark for mark in node.decorator_list)
    return any(
        (isinstance(mark, ast.Name) and mark.id == "export")
        or (isinstance(mark, ast.Attribute) and mark.attr == "export")
        for mark in names
    )


def _permissions(manifest: Manifest, scan: Scan) -> Iterator[Finding]:
    asked = {
        "http": ("connect or request", bool(manifest.connect or manifest.request)),
        "files": ("read or write", bool(manifest.paths)),
        "connect": ("connect", bool(manifest.connect)),
        "env": ("env", bool(manifest.env)),
    }
    for capability, (kinds, given) in asked.items():
        place = scan.uses.get(capability)
        if place is not None and not given:
            yield Finding("error", str(place), f"self.{capability} is used, and the manifest asks for no {kinds}")
        elif capability not in scan.mentions and given and not _serves_another(manifest, scan, capability):
            yield Finding("warning", FILE_NAME, f"{kinds} is asked for, and self.{capability} is never used")
    asks = scan.uses.get("request")
    if asks is not None and not manifest.optional:
        yield Finding("warning", str(asks), "self.request is used, and the manifest has nothing optional to ask for")
    elif manifest.optional and "request" not in scan.mentions:
        told = "something is optional, and self.request is never used: only a policy that grants it at once gives it"
        yield Finding("warning", FILE_NAME, told)


def _serves_another(manifest: Manifest, scan: Scan, capability: str) -> bool:
    """Whether what is asked for is used by another capability: a connect rule serves requests and connections."""
    if capability == "connect":
        return True  # `http` tells
    return capability == "http" and bool(manifest.connect) and "connect" in scan.mentions


def _urls(manifest: Manifest, scan: Scan) -> Iterator[Finding]:
    # The manifest as if all of it were granted: what this guard denies, no policy can allow.
    wanted = SandboxPolicy(connect=manifest.connect, request=manifest.request)
    guard = SandboxGuard(wanted, manifest=manifest)
    for url in scan.urls:
        reason = _refused(guard, url)
        if reason is not None:
            method = f"{url.method} " if url.method else ""
            kind: Literal["error", "warning"] = "error" if url.method else "warning"
            yield Finding(kind, str(url.place), f"{method}{escape(url.text)}: {reason}")


def _refused(guard: SandboxGuard, url: Url) -> str | None:
    if url.method is not None:
        decision = guard.decide_request(url.method, url.text)
        return None if decision.allowed else _asked(decision.reason)
    # A URL outside a request may be a beginning, a name space, or data: only its origin is looked at.
    parts = guard.judge_request("GET", url.text)
    if not parts.host:
        return None
    origin = guard.judge_origin(parts.host, parts.port)
    return None if origin.allowed else f"if this is requested: {_asked(origin.reason)}"


def _asked(reason: str) -> str:
    return "the manifest asks for no rule that covers it" if reason.startswith("no rule") else reason


def _bypasses(scan: Scan) -> Iterator[Finding]:
    for call in scan.bypasses:
        yield Finding("error", str(call.place), f"{call.name} goes round the sandbox and is refused; {call.instead}")
