"""Finds plugins in folders and among installed distributions, without importing their code."""

import importlib.util
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nyx_stream.errors import ManifestError, PluginLoadError, PluginNotFound, Problem
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy.manifest import FILE_NAME, Manifest

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "nyx.plugins"
"""Entry-point group of distributions that are plugins; the name of the entry point is the plugin's id."""


def find(where: str | os.PathLike[str]) -> PluginSource:
    """Returns the plugin of a folder, or of an installed distribution by the name of its entry point.

    A path object, and a text with a path separator, name a folder; a plain name is a folder if it exists.

    Raises:
        PluginNotFound: there is neither.
        ManifestError: the manifest can't be read, or is wrong.
    """
    text = os.fspath(where)
    if os.path.isdir(text):
        return in_folder(text)
    if text != where or os.path.basename(text) != text or text in ("", ".", ".."):
        raise PluginNotFound(text, "no such plugin folder")
    for entry in _installed(text):
        return in_distribution(entry)
    raise PluginNotFound(
        text, f"there is no such folder, and no installed distribution with this name among its entry points {GROUP}"
    )


def in_folder(folder: str) -> PluginSource:
    """Returns the plugin whose `plugin.toml` is in `folder`. Raises `ManifestError`."""
    folder = os.path.realpath(folder)
    return PluginSource(_manifest(os.path.join(folder, FILE_NAME)), folder, folder)


def in_distribution(entry: "EntryPoint") -> PluginSource:
    """Returns the plugin of an entry point, which names the package that has its manifest.

    Raises:
        PluginLoadError: the manifest is missing, or names another id or entry than the entry point does.
        ManifestError: the manifest can't be read, or is wrong.
    """
    top = entry.module.partition(".")[0]
    path = _shipped_manifest(entry.dist, top) or _manifest_beside(top)
    if path is None:
        raise PluginLoadError(entry.name, f"its distribution has no {FILE_NAME} in the package {top}")
    manifest = _manifest(path)
    if (manifest.id, manifest.entry) != (entry.name, entry.value):
        raise PluginLoadError(
            entry.name, f"{FILE_NAME} has id {manifest.id!r} and entry {manifest.entry!r}, not {entry.value!r}"
        )
    folder = os.path.dirname(path)
    package = folder
    while os.path.basename(package) != top:
        package = os.path.dirname(package)
    name = entry.dist.name if entry.dist is not None else None
    return PluginSource(manifest, folder, os.path.dirname(package), frozenset({top}), name)


def discover(folder: str | os.PathLike[str] | None = None) -> Iterator[PluginSource | ManifestError | PluginLoadError]:
    """Yields every plugin in the direct subfolders of `folder`, then every installed one; an error for a bad one."""
    if folder is not None:
        with os.scandir(folder) as entries:
            folders = sorted(entry.path for entry in entries if entry.is_dir())
        for path in folders:
            if os.path.exists(os.path.join(path, FILE_NAME)):
                try:
                    yield in_folder(path)
                except ManifestError as error:
                    yield error
    for entry in _installed():
        try:
            yield in_distribution(entry)
        except (ManifestError, PluginLoadError) as error:
            yield error


def _installed(name: str | None = None) -> "Iterable[EntryPoint]":
    from importlib.metadata import entry_points  # it imports the e-mail parser

    return entry_points(group=GROUP) if name is None else entry_points(group=GROUP, name=name)


def _manifest(path: str) -> Manifest:
    try:
        return Manifest.from_toml(path)
    except OSError as error:
        raise ManifestError([Problem(f"cannot be read: {error.strerror}", where=path)]) from error


def _shipped_manifest(distribution: "Distribution | None", top: str) -> str | None:
    if distribution is None:
        return None
    for file in distribution.files or ():
        if file.name == FILE_NAME and file.parts[0] == top:
            return os.path.realpath(str(distribution.locate_file(file)))
    return None


def _manifest_beside(top: str) -> str | None:
    """Returns the manifest of a package that is installed in place. `find_spec` doesn't import a top-level package."""
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = os.path.realpath(os.path.join(folder, FILE_NAME))
        if os.path.isfile(path):
            return path
    return None
