"""Imports a plugin's modules from its folder under a private name, and removes them again.

Theory of operation
    The modules of a plugin are children of a package with a random name, so two plugins may have modules of the same
    name. Relative imports work because that package is their parent. Absolute imports of sibling modules work because
    the plugin's modules have their own builtins, whose `__import__` looks into that package first. No bytecode is read
    or written. Where the host has hashed the plugin's files, every file is compared with its digest right before it is
    compiled or loaded, however late that import happens.
"""

import builtins
import hashlib
import importlib
import linecache
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from types import CodeType, ModuleType
from typing import Any, TypeAlias

from nyx_stream.attribution import as_host

Digests: TypeAlias = Mapping[str, str]
"""The `digest_of` of files by `digest_key`."""


def digest_of(data: bytes) -> str:
    """Returns the BLAKE2b hash of a file's bytes: 32 bytes, as hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def digest_key(path: str, root: str) -> str:
    """Returns the key of a file in `Digests`: its path below the root of the plugin's modules, with `/`."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def find_digest(digests: Digests, root: str, path: str) -> str | None:
    """Returns the digest of the file at an absolute path, or else of the file that it links to.

    A link that was redirected to another file of the plugin meanwhile yields that file's digest.
    """
    for top, name in ((root, path), (os.path.realpath(root), os.path.realpath(path))):
        found = digests.get(digest_key(name, top))
        if found is not None:
            return found
    return None


class PluginModules:
    """The modules of one plugin, loaded once. Use it from one thread at a time."""

    def __init__(
        self, plugin: str, root: str, names: frozenset[str] | None = None, digests: Digests | None = None
    ) -> None:
        self.root = root
        self.prefix = f"_nyx_{re.sub(r'[^A-Za-z0-9_]', '_', plugin)}_{os.urandom(4).hex()}"
        self._finder = _Finder(self.prefix, root, names, digests)
        self._installed = False

    @property
    def builtins(self) -> Mapping[str, Any]:
        """The builtins of the plugin's modules. A frame that has them runs the plugin's code."""
        return self._finder.builtins

    def load(self, entry: str) -> Any:
        """Imports the module of `"module:name"` and returns its `name`. Raises what the import raises."""
        module, _, name = entry.partition(":")
        if not self._installed:
            package = ModuleType(self.prefix, "The private parent package of one plugin's modules.")
            package.__path__ = []  # empty, so that the ordinary path finder finds nothing below it
            sys.modules[self.prefix] = package
            sys.meta_path.insert(0, self._finder)
            self._installed = True
        return getattr(importlib.import_module(f"{self.prefix}.{module}"), name)

    def remove(self) -> None:
        """Removes the modules, and everything that importing them left behind, from the interpreter."""
        remove_all([self])


def remove_all(loaded: Iterable[PluginModules]) -> None:
    """Removes the modules of several plugins in one pass over those of the interpreter."""
    removed = [modules for modules in loaded if modules._installed]
    if not removed:
        return
    for modules in removed:
        modules._installed = False
    finders = {id(modules._finder) for modules in removed}
    sys.meta_path[:] = [finder for finder in sys.meta_path if id(finder) not in finders]
    prefixes = {modules.prefix for modules in removed}
    for name in [name for name in sys.modules if name.partition(".")[0] in prefixes]:
        del sys.modules[name]
    roots = {modules.root for modules in removed}
    for path in [path for path in linecache.cache if _is_below(path, roots)]:
        del linecache.cache[path]


def _is_below(path: str, roots: set[str]) -> bool:
    above = os.path.dirname(path)
    while above not in roots and above != path:
        path, above = above, os.path.dirname(above)
    return above in roots


class _Finder:
    """Finds the modules of one plugin. The hook of `sys.meta_path`."""

    def __init__(self, prefix: str, root: str, names: frozenset[str] | None, digests: Digests | None) -> None:
        self.prefix = prefix
        self._dotted = f"{prefix}."
        self._root = root
        self.real_root = os.path.join(os.path.realpath(root), "")
        self._names = names
        self.digests = digests
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
        if not name.startswith(self._dotted):
            return None
        if name.count(".") == 1:
            return self._find(name, [self._root]) if self._owns(name[len(self._dotted) :]) else None
        return self._find(name, path or ())

    def check(self, module: str, path: str, data: bytes) -> None:
        """Compares a file that is about to run with its digest. Raises `ImportError` if it differs."""
        if self.digests is None:
            return
        known = find_digest(self.digests, self._root, path)
        if known is None or known != digest_of(data):
            change = "is new" if known is None else "has changed"
            raise ImportError(f"{path} {change} since the host hashed the plugin's files", name=module, path=path)

    def _find(self, name: str, folders: Sequence[str]) -> ModuleSpec | None:
        with as_host():  # the framework lists the plugin's own folder
            for folder in folders:
                spec = self._folder(folder).find_spec(name)
                if spec is not None:
                    return spec
        return None

    def _folder(self, folder: str) -> FileFinder:
        if folder not in self._folders:
            self._folders[folder] = FileFinder(
                folder,
                (partial(_ExtensionLoader, finder=self), EXTENSION_SUFFIXES),  # type: ignore[arg-type]  # makes a loader
                (partial(_SourceLoader, finder=self), SOURCE_SUFFIXES),  # type: ignore[arg-type]  # makes a loader
            )
        return self._folders[folder]

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
        """`__import__` of the plugin's modules: resolves an absolute name that is the plugin's own in its package."""
        top = name.partition(".")[0]
        if level or not self._owns(top):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = builtins.__import__(f"{self.prefix}.{name}", globals, locals, fromlist or (), 0)
        # `import a.b` binds `a`, which is one level below what the builtin returns.
        return module if fromlist else sys.modules[f"{self.prefix}.{top}"]


class _SourceLoader(SourceFileLoader):
    """Loads a source file without bytecode files, with the plugin's builtins."""

    def __init__(self, name: str, path: str, finder: _Finder) -> None:
        super().__init__(name, path)
        self._finder = finder

    def get_data(self, path: str) -> bytes:
        # `pkgutil.get_data` ends here too: the framework reads for it, but only below the plugin's own folder.
        if not os.path.realpath(path).startswith(self._finder.real_root):
            return super().get_data(path)
        with as_host():
            return super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        data = self.get_data(path)
        self._finder.check(fullname, path, data)
        code: CodeType = self.source_to_code(data, path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._finder.builtins
        super().exec_module(module)


class _ExtensionLoader(ExtensionFileLoader):
    """Checks an extension module right before the system loads it, which reads the file again."""

    def __init__(self, name: str, path: str, finder: _Finder) -> None:
        super().__init__(name, path)
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if self._finder.digests is not None:
            with as_host():
                data = self.get_data(self.path)
            self._finder.check(self.name, self.path, data)
        return super().create_module(spec)
