"""Scans a plugin's source code for capabilities, URLs and calls that bypass the capabilities.

The code is parsed, but never imported or run. The scan finds plainly written uses, as in honest code. It proves nothing
about hostile code, which the sandbox is for.
"""

import ast
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

CAPABILITIES = ("http", "files", "connect", "env", "request")
_METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
_MAX_BYTES = 4 * 2**20
"""Maximum size of a source file."""
_NOT_SCANNED = ("__pycache__", "tests", "node_modules")

# Functions, or modules of functions, that bypass the capabilities, and what to use instead.
_BYPASSES = {
    "open": "use self.files.open",
    "io.open": "use self.files.open",
    "os.open": "use self.files.open",
    "pathlib.Path": "use self.files",
    "os.system": "a plugin cannot start processes",
    "os.popen": "a plugin cannot start processes",
    "os.fork": "a plugin cannot start processes",
    "os.posix_spawn": "a plugin cannot start processes",
    "asyncio.create_subprocess_exec": "a plugin cannot start processes",
    "asyncio.create_subprocess_shell": "a plugin cannot start processes",
    "asyncio.open_connection": "use self.connect, or self.http",
    "httpx.AsyncClient": "use self.http",
    "httpx.Client": "use self.http",
    "subprocess": "a plugin cannot start processes",
    "multiprocessing": "a plugin cannot start processes",
    "socket": "use self.connect, or self.http",
    "ctypes": "native code is not granted",
    "threading": "use self.spawn, or asyncio.to_thread",
    "requests": "use self.http",
    "urllib.request": "use self.http",
    "http.client": "use self.http",
    "aiohttp": "use self.http",
}
_HARMLESS = frozenset({"socket.gaierror", "socket.timeout", "subprocess.CalledProcessError", "threading.Lock"})


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A line in a file of the plugin. The file name is relative to the root of the plugin's modules."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class UrlLiteral:
    """A URL in the source. `method` is the HTTP method if the URL is an argument of a call of `self.http`."""

    text: str
    method: str | None
    location: SourceLocation


@dataclass(frozen=True, slots=True)
class Bypass:
    """A call that bypasses the capabilities. `instead` is what to use in its place."""

    name: str
    instead: str
    location: SourceLocation


@dataclass
class Scan:
    """Everything that the scan found."""

    uses: dict[str, SourceLocation] = field(default_factory=dict)
    """Capabilities by name, with the first location that uses it as an attribute of `self`."""
    mentions: set[str] = field(default_factory=set)
    """Names of capabilities that are attributes of any object, since the plugin may be passed to another module."""
    urls: list[UrlLiteral] = field(default_factory=list)
    bypasses: list[Bypass] = field(default_factory=list)
    unreadable: list[tuple[SourceLocation, str]] = field(default_factory=list)
    """Files that could not be parsed, with the reason."""
    trees: dict[str, ast.Module] = field(default_factory=dict)
    """Syntax trees by file name, relative to the root of the plugin's modules, with `/`."""


def scan_folder(folder: str, root: str) -> Scan:
    """Scans every module below `folder` except tests and hidden folders. Names are relative to `root`.

    Raises:
        OSError: a file can't be read.
    """
    scan = Scan()
    for path in _sources(folder):
        name = os.path.relpath(path, root).replace(os.sep, "/")
        try:
            tree = _parse(path, name)
            _Reader(scan, name).visit(tree)
        except SyntaxError as error:
            scan.unreadable.append((SourceLocation(name, error.lineno or 1), f"syntax error: {error.msg}"))
        except ValueError as error:
            scan.unreadable.append((SourceLocation(name, 1), f"cannot be parsed: {error}"))
        except (RecursionError, MemoryError):
            scan.unreadable.append((SourceLocation(name, 1), "cannot be parsed: nested too deeply"))
        else:
            scan.trees[name] = tree
    return scan


def _parse(path: str, name: str) -> ast.Module:
    with open(path, "rb") as file:
        source = file.read(_MAX_BYTES + 1)
    if len(source) > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's warnings about the plugin are not relevant here
        return ast.parse(source, name)


def _sources(folder: str) -> Iterator[str]:
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_SCANNED and not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(base, name)
            if name.endswith(".py") and not name.startswith("test_") and name != "conftest.py" and os.path.isfile(path):
                yield path


class _Reader(ast.NodeVisitor):
    """Visits one module and adds to `scan`."""

    def __init__(self, scan: Scan, name: str) -> None:
        self._scan = scan
        self._name = name
        self._imported: dict[str, str] = {}
        self._seen: set[ast.AST] = set()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            package = alias.name.partition(".")[0]
            self._imported[alias.asname or package] = alias.name if alias.asname else package

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0:
            for alias in node.names:
                self._imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Expr(self, node: ast.Expr) -> None:
        # A string as a statement is a docstring or a comment, so its URLs are not requested.
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in CAPABILITIES:
            self._scan.mentions.add(node.attr)
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                self._scan.uses.setdefault(node.attr, self._location(node))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = self._dotted(node.func)
        instead = _instead(name)
        if instead is not None:
            self._scan.bypasses.append(Bypass(name, instead, self._location(node)))
        self._add_request(node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        self._add_url(node, None)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._add_url(node, None)
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value)

    def _add_request(self, call: ast.Call) -> None:
        """Adds the URL of `self.http.get(URL)`, `.request(METHOD, URL)` and `.stream(METHOD, URL)`."""
        function = call.func
        if not (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Attribute)
            and function.value.attr == "http"
            and call.args
        ):
            return
        if function.attr in _METHODS:
            self._add_url(call.args[0], function.attr.upper())
        elif function.attr in ("request", "stream") and len(call.args) > 1:
            method = call.args[0]
            known = isinstance(method, ast.Constant) and isinstance(method.value, str)
            self._add_url(call.args[1], str(ast.literal_eval(method)).upper() if known else None)

    def _add_url(self, node: ast.expr, method: str | None) -> None:
        text = _url_text(node)
        if text is not None and node not in self._seen:
            self._seen.add(node)
            self._scan.urls.append(UrlLiteral(text, method, self._location(node)))

    def _dotted(self, node: ast.expr) -> str:
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self._imported.get(node.id, node.id), *reversed(names)])

    def _location(self, node: ast.expr) -> SourceLocation:
        return SourceLocation(self._name, node.lineno)


def _instead(name: str) -> str | None:
    if not name or name in _HARMLESS:
        return None
    parts = name.split(".")
    return next((_BYPASSES[head] for n in range(len(parts), 0, -1) if (head := ".".join(parts[:n])) in _BYPASSES), None)


def _url_text(node: ast.expr) -> str | None:
    """Returns the URL that a string begins with. Values inserted at run time are replaced by `x`."""
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        first = node.values[0] if node.values else None
        # A host that is inserted at run time is unknown: only a URL with a written host can be checked.
        if not (isinstance(first, ast.Constant) and "/" in str(first.value).partition("://")[2]):
            return None
    else:
        return None
    scheme, separator, rest = text.partition("://")
    return (
        text
        if separator and scheme.lower() in ("http", "https") and rest and not any(c.isspace() for c in text)
        else None
    )
