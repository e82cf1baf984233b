"""`nyx check`: compares a plugin's manifest with its source code, without importing or running it."""

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from nyx_stream.cli import output
from nyx_stream.cli.exit_codes import ExitCode
from nyx_stream.cli.options import Json, PluginArgument
from nyx_stream.cli.source_scan import Scan, UrlLiteral, scan_folder
from nyx_stream.guard import SandboxGuard
from nyx_stream.host import find
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.manifest import FILE_NAME, Manifest
from nyx_stream.text import escape


@dataclass(frozen=True, slots=True)
class Finding:
    """`error`: it would fail when run. `warning`: it isn't needed, or the source doesn't show whether it would fail."""

    severity: Literal["error", "warning"]
    at: str
    message: str


def check(plugin: PluginArgument, json: Json = False) -> int:
    """Compare a plugin's manifest with what its code uses.

    Reads the code without importing it. The exit code is 1 if there is an error.
    """
    source = find(plugin)
    manifest, scan = source.manifest, scan_folder(source.folder, source.root)
    findings = [
        *(Finding("error", str(location), escape(message)) for location, message in scan.unreadable),
        *_entry(manifest, scan),
        *_permissions(manifest, scan),
        *_urls(manifest, scan),
        *_bypasses(scan),
    ]
    errors = sum(finding.severity == "error" for finding in findings)
    if json:
        output.print_json({"plugin": manifest.id, "ok": not errors, "findings": [asdict(found) for found in findings]})
    else:
        for found in findings:
            output.print_text(f"{escape(found.at)}: {found.severity}: {found.message}")
        numbers = {"error": errors, "warning": len(findings) - errors}
        verdict = ", ".join(output.count(number, noun) for noun, number in numbers.items() if number) or "ok"
        files = output.count(len(scan.trees), "file")
        output.print_text(f"{manifest.id} {manifest.version}: {verdict} ({files} read)")
    return ExitCode.DENIED if errors else ExitCode.OK


def _entry(manifest: Manifest, scan: Scan) -> Iterator[Finding]:
    module, _, name = manifest.entry.partition(":")
    stem = module.replace(".", "/")
    file = next((file for file in (f"{stem}.py", f"{stem}/__init__.py") if file in scan.trees), None)
    if file is None:
        if not any(location.file.startswith(stem) for location, _ in scan.unreadable):
            yield Finding("error", FILE_NAME, f"entry: neither {stem}.py nor {stem}/__init__.py exists")
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
        problem = "imported from another module and not checked" if imported else "not defined"
        yield Finding(kind, file, f"entry: the class {name} is {problem}")
        return
    at = f"{file}:{found.lineno}"
    if not found.bases:
        yield Finding("error", at, f"entry: {name} is not a subclass of Plugin")
    if not any(_is_exported(node) for node in ast.walk(found)):
        message = f"entry: {name} exports no method: mark the methods that a host may call with @export"
        yield Finding("warning", at, message)


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
    requested = {
        "http": ("connect or request", bool(manifest.connect or manifest.request)),
        "files": ("read or write", bool(manifest.paths)),
        "connect": ("connect", bool(manifest.connect)),
        "env": ("env", bool(manifest.env)),
    }
    for capability, (kinds, given) in requested.items():
        used = scan.uses.get(capability)
        if used is not None and not given:
            yield Finding("error", str(used), f"self.{capability} is used, but the manifest does not request {kinds}")
        elif capability not in scan.mentions and given and not _serves_another(manifest, scan, capability):
            yield Finding("warning", FILE_NAME, f"{kinds} is requested, but self.{capability} is never used")
    asks = scan.uses.get("request")
    if asks is not None and not manifest.optional:
        yield Finding("warning", str(asks), "self.request is used, but the manifest has no optional permissions")
    elif manifest.optional and "request" not in scan.mentions:
        message = "there are optional permissions, but self.request is never used: only a policy can grant them"
        yield Finding("warning", FILE_NAME, message)


def _serves_another(manifest: Manifest, scan: Scan, capability: str) -> bool:
    """Whether another capability uses the permission: a connect rule serves requests and connections."""
    if capability == "connect":
        return True  # reported for `http`
    return capability == "http" and bool(manifest.connect) and "connect" in scan.mentions


def _urls(manifest: Manifest, scan: Scan) -> Iterator[Finding]:
    # A guard with everything in the manifest granted: no policy can allow what it denies.
    wanted = SandboxPolicy(connect=manifest.connect, request=manifest.request)
    guard = SandboxGuard(wanted, manifest=manifest)
    for url in scan.urls:
        reason = _denial(guard, url)
        if reason is not None:
            method = f"{url.method} " if url.method else ""
            kind: Literal["error", "warning"] = "error" if url.method else "warning"
            yield Finding(kind, str(url.location), f"{method}{escape(url.text)}: {reason}")


def _denial(guard: SandboxGuard, url: UrlLiteral) -> str | None:
    if url.method is not None:
        decision = guard.decide_request(url.method, url.text)
        return None if decision.allowed else _explain(decision.reason)
    # A URL outside a request may be a prefix, a namespace or data, so only its origin is checked.
    parts = guard.judge_request("GET", url.text)
    if not parts.host:
        return None
    origin = guard.judge_origin(parts.host, parts.port)
    return None if origin.allowed else f"if this is requested: {_explain(origin.reason)}"


def _explain(reason: str) -> str:
    return "the manifest requests no rule that covers it" if reason.startswith("no rule") else reason


def _bypasses(scan: Scan) -> Iterator[Finding]:
    for call in scan.bypasses:
        yield Finding("error", str(call.location), f"{call.name} bypasses the sandbox and is refused; {call.instead}")
