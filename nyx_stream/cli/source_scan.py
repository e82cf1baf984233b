"""What a plugin's source says it does, read as syntax: nothing is imported and nothing runs.

A scan sees what is written plainly, which is what honest code does. It proves nothing about hostile code; the sandbox
is for that. Knows neither manifests nor policies.
"""

import ast
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

CAPABILITIES = ("http", "files", "connect", "env", "request")
_METHODS = {
    "get": "GET",
    "head": "HEAD",
    "post": "POST",
    "put": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "options": "OPTIONS",
}
_LARGEST = 4 * 2**20
"""Bytes of one source file."""
_NOT_SCANNED = ("__pycache__", "tests", "node_modules")

# What goes round the capabilities, by dotted name or by the module it lies in, and what to do instead.
_ROUND = {
    "open": "use self.files.open",
    "io.open": "use self.files.open",
    "os.open": "use self.files.open",
    "pathlib.Path": "use self.files",
    "os.system": "a plugin starts no process",
    "os.popen": "a plugin starts no process",
    "os.fork": "a plugin starts no process",
    "os.posix_spawn": "a plugin starts no process",
    "asyncio.create_subprocess_exec": "a plugin starts no process",
    "asyncio.create_subprocess_shell": "a plugin starts no process",
    "asyncio.open_connection": "use self.connect, or self.http",
    "httpx.AsyncClient": "use self.http",
    "httpx.Client": "use self.http",
    "subprocess": "a plugin starts no process",
    "multiprocessing": "a plugin starts no process",
    "socket": "use self.connect, or self.http",
    "ctypes": "native code is not granted",
    "threading": "use self.spawn, or asyncio.to_thread",
    "requests": "use self.http",
    "urllib.request": "use self.http",
    "http.client": "use self.http",
    "aiohttp": "use self.http",
}
_READS_ONLY = frozenset({"socket.gaierror", "socket.timeout", "subprocess.CalledProcessError", "threading.Lock"})


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file of the plugin; the file is named from the root of the plugin's modules."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in the text. `method` is given where it stands in a call of `self.http`, `whole` where nothing is added."""

    text: str
    method: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class Bypass:
    """A call that goes round the capabilities. `instead` is the author's way."""

    name: str
    instead: str
    place: Place


@dataclass
class Scan:
    """All that was seen."""

    uses: dict[str, Place] = field(default_factory=dict)
    """Capability by name, with the first place that uses it of `self`."""
    mentions: set[str] = field(default_factory=set)
    """Names of capabilities that are taken of any object: another module may be given the plugin."""
    urls: list[Url] = field(default_factory=list)
    bypasses: list[Bypass] = field(default_factory=list)
    broken: list[tuple[Place, str]] = field(default_factory=list)
    """Files that are no Python, with what is wrong."""
    trees: dict[str, ast.Module] = field(default_factory=dict)
    """Each file's syntax, by its name from the root of the plugin's modules, with `/`."""


def scan_folder(folder: str, root: str) -> Scan:
    """Reads every module below `folder`, but for tests and hidden folders; names them from `root`. Raises `OSError`."""
    scan = Scan()
    for path in _sources(folder):
        name = os.path.relpath(path, root).replace(os.sep, "/")
        try:
            tree = _parse(path, name)
            _Reader(scan, name).visit(tree)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            scan.broken.append((Place(name, line), f"is no Python: {getattr(error, 'msg', error)}"))
        except (RecursionError, MemoryError):
            scan.broken.append((Place(name, 1), "is nested too deep to be read"))
        else:
            scan.trees[name] = tree
    return scan


def _parse(path: str, name: str) -> ast.Module:
    with open(path, "rb") as file:
        source = file.read(_LARGEST + 1)
    if len(source) > _LARGEST:
        raise ValueError(f"larger than {_LARGEST} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler thinks of the plugin's style is not asked here
        return ast.parse(source, name)


def _sources(folder: str) -> Iterator[str]:
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_SCANNED and not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(base, name)
            if name.endswith(".py") and not name.startswith("test_") and name != "conftest.py" and os.path.isfile(path):
                yield path


class _Reader(ast.NodeVisitor):
    """Walks one module and notes into `scan`."""

    def __init__(self, scan: Scan, name: str) -> None:
        self._scan = scan
        self._name = name
        self._imported: dict[str, str] = {}
        self._seen: set[ast.AST] = set()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._imported[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0:
            for alias in node.names:
                self._imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Expr(self, node: ast.Expr) -> None:
        # A text that stands alone is a docstring or a remark: its URLs are not requested.
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in CAPABILITIES:
            self._scan.mentions.add(node.attr)
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                self._scan.uses.setdefault(node.attr, self._place(node))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = self._dotted(node.func)
        instead = _instead(name)
        if instead is not None:
            self._scan.bypasses.append(Bypass(name, instead, self._place(node)))
        self._note_request(node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        self._note_url(node, None)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._note_url(node, None)
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value)

    def _note_request(self, call: ast.Call) -> None:
        """Notes the URL of `self.http.get(URL)`, `.request(METHOD, URL)` and `.stream(METHOD, URL)`."""
        function = call.func
        if not (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Attribute)
            and function.value.attr == "http"
            and call.args
        ):
            return
        if function.attr in _METHODS:
            self._note_url(call.args[0], _METHODS[function.attr])
        elif function.attr in ("request", "stream") and len(call.args) > 1:
            method = call.args[0]
            known = isinstance(method, ast.Constant) and isinstance(method.value, str)
            self._note_url(call.args[1], str(ast.literal_eval(method)).upper() if known else None)

    def _note_url(self, node: ast.expr, method: str | None) -> None:
        text = _url_text(node)
        if text is not None and node not in self._seen:
            self._seen.add(node)
            self._scan.urls.append(Url(text, method, self._place(node)))

    def _dotted(self, node: ast.expr) -> str:
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self._imported.get(node.id, node.id), *reversed(names)])

    def _place(self, node: ast.expr) -> Place:
        return Place(self._name, node.lineno)


def _instead(name: str) -> str | None:
    if not name or name in _READS_ONLY:
        return None
    parts = name.split(".")
    return next((_ROUND[head] for n in range(len(parts), 0, -1) if (head := ".".join(parts[:n])) in _ROUND), None)


def _url_text(node: ast.expr) -> str | None:
    """Returns the URL that a text begins with; what is put in at run time stands as `x`, for a segment of a path."""
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
    elif isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        first = node.values[0] if node.values else None
        # A host that is put in at run time says nothing: only what follows a written host can be judged.
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
