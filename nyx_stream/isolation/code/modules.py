"""A plugin's own modules: imported from its folder under a private name, removed without a trace.

The plugin's modules live below a package of a random name, so two plugins may have modules of the same name. Relative
imports work because that package is their parent; absolute imports of sibling modules work because the plugin's
modules have builtins of their own, whose `__import__` looks below that package first. No bytecode is read or written.
Where the host has hashed the plugin's files, what is compiled is what was hashed, however late it is imported.

Knows nothing of policies, guards or hosts.
"""

import builtins
import importlib
import linecache
import os
import re
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from types import CodeType, ModuleType
from typing import Any

from nyx_stream.attribution import as_host
from nyx_stream.isolation.code.content_digests import AcceptedFiles, Digests


class PluginModules:
    """The modules of one plugin, loaded once. Use from one thread at a time."""

    def __init__(
        self, plugin: str, root: str, names: frozenset[str] | None = None, digests: Digests | None = None
    ) -> None:
        self.root = root
        self.prefix = f"_nyx_{re.sub(r'[^A-Za-z0-9_]', '_', plugin)}_{secrets.token_hex(4)}"
        accepted = None if digests is None else AcceptedFiles(root, digests)
        self._finder = _Finder(self.prefix, root, names, accepted)
        self._installed = False

    @property
    def names(self) -> Mapping[str, Any]:
        """The builtins of the plugin's modules: whose frame has them runs the plugin's code."""
        return self._finder.builtins

    def load(self, entry: str) -> Any:
        """Imports the module of `"module:name"` and returns what it calls `name`. Raises whatever the import raises."""
        module, _, name = entry.partition(":")
        if not self._installed:
            self._install()
        return getattr(importlib.import_module(f"{self.prefix}.{module}"), name)

    def remove(self) -> None:
        """Takes the modules and everything that importing them left behind out of the interpreter."""
        remove_all([self])

    def _withdraw(self) -> bool:
        """Notes that they are being removed. Whether there is anything to remove."""
        installed, self._installed = self._installed, False
        return installed

    def _install(self) -> None:
        package = ModuleType(self.prefix, "The private parent package of one plugin's modules.")
        # Empty, so that the ordinary path finder finds nothing here: everything below goes through our finder.
        package.__path__ = []
        sys.modules[self.prefix] = package
        sys.meta_path.insert(0, self._finder)
        self._installed = True


def remove_all(loaded: Iterable[PluginModules]) -> None:
    """Removes the modules of several plugins, in one pass through those of the interpreter."""
    gone = [modules for modules in loaded if modules._withdraw()]
    if not gone:
        return
    finders = {id(modules._finder) for modules in gone}
    sys.meta_path[:] = [finder for finder in sys.meta_path if id(finder) not in finders]
    prefixes = {modules.prefix for modules in gone}
    for name in [name for name in sys.modules if name.partition(".")[0] in prefixes]:
        del sys.modules[name]
    roots = {modules.root for modules in gone}
    for path in [path for path in linecache.cache if _lies_below(path, roots)]:
        del linecache.cache[path]


def _lies_below(path: str, roots: set[str]) -> bool:
    above = os.path.dirname(path)
    while above not in roots and above != path:
        path, above = above, os.path.dirname(above)
    return above in roots


class _Finder:
    """Finds the modules of one plugin, and none of anybody else."""

    def __init__(self, prefix: str, root: str, names: frozenset[str] | None, accepted: AcceptedFiles | None) -> None:
        self.prefix = prefix
        self._dotted = f"{prefix}."
        self._root = root
        self._names = names
        self._accepted = accepted
        self._folders: dict[str, FileFinder] = {}
        self._own: dict[str, bool] = {}
        self.builtins = dict(vars(builtins))
        self.builtins["__import__"] = self._import

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # part of the hook's signature
    ) -> ModuleSpec | None:
        """The hook of `sys.meta_path`."""
        if not name.startswith(self._dotted):
            return None
        if name.count(".") == 1:
            return self._find(name, [self._root]) if self._owns(name[len(self._dotted) :]) else None
        return self._find(name, path or ())

    def _find(self, name: str, folders: Sequence[str]) -> ModuleSpec | None:
        with as_host():  # listing the plugin's own folder is the framework's act
            for folder in folders:
                spec = self._folder(folder).find_spec(name)
                if spec is not None:
                    return spec
        return None

    def _folder(self, folder: str) -> FileFinder:
        if folder not in self._folders:
            self._folders[folder] = FileFinder(
                folder,
                (self._extension, EXTENSION_SUFFIXES),  # type: ignore[arg-type]  # any callable that makes a loader
                (self._loader, SOURCE_SUFFIXES),  # type: ignore[arg-type]  # any callable that makes a loader
            )
        return self._folders[folder]

    def _loader(self, name: str, path: str) -> "_Loader":
        return _Loader(name, path, self._root, self.builtins, self._accepted)

    def _extension(self, name: str, path: str) -> ExtensionFileLoader:
        return ExtensionFileLoader(name, path) if self._accepted is None else _Extension(name, path, self._accepted)

    def _owns(self, top: str) -> bool:
        """Whether the top-level name `top` is one of the plugin's own modules."""
        if top not in self._own:
            listed = self._names is None or top in self._names
            self._own[top] = listed and self._find(f"{self.prefix}.{top}", [self._root]) is not None
        return self._own[top]

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002  # the builtin's own names
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """`__import__` of the plugin's modules: an absolute name that is the plugin's own is taken from its package."""
        top = name.partition(".")[0]
        if level or not self._owns(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = builtins.__import__(f"{self.prefix}.{name}", globals, locals, fromlist or (), 0)
        # `import a.b` binds `a`, which is one level further down here than the builtin thinks.
        return module if fromlist else sys.modules[f"{self.prefix}.{top}"]


class _Loader(SourceFileLoader):
    """Loads a source file without bytecode files, with the plugin's builtins."""

    def __init__(self, name: str, path: str, root: str, names: dict[str, Any], accepted: AcceptedFiles | None) -> None:
        super().__init__(name, path)
        self._root = os.path.join(os.path.realpath(root), "")
        self._builtins = names
        self._accepted = accepted

    def get_data(self, path: str) -> bytes:
        # pkgutil.get_data comes here too: below its own folder a plugin may read; elsewhere it is on its own.
        if not os.path.realpath(path).startswith(self._root):
            return super().get_data(path)
        with as_host():
            return super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        data = self.get_data(path)
        if self._accepted is not None:
            self._accepted.must_have(fullname, path, data)
        code: CodeType = self.source_to_code(data, path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._builtins
        super().exec_module(module)


class _Extension(ExtensionFileLoader):
    """Loads an extension module that was looked at right before: the system reads the file by itself."""

    def __init__(self, name: str, path: str, accepted: AcceptedFiles) -> None:
        super().__init__(name, path)
        self._accepted = accepted

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        with as_host():
            data = self.get_data(self.path)
        self._accepted.must_have(self.name, self.path, data)
        return super().create_module(spec)
