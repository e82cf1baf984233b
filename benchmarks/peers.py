"""Peers: packages with the same purpose, measured next to Nyx if the extra `bench` has installed them."""

import importlib
import importlib.metadata
from types import ModuleType

PEERS = ("httpx-secure", "httpx2", "nono-py", "sandlock", "ssrfguard")
"""The distributions in the extra `bench`."""


def survey() -> dict[str, str]:
    """Returns the version of each peer, `""` if it is not installed."""
    found: dict[str, str] = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def peer(module: str) -> ModuleType | str:
    """Returns the module of a peer, or the reason why it cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return f"{module} is not installed here ({error})"


def version(distribution: str) -> str:
    """Returns name and version of an installed distribution."""
    return f"{distribution} {importlib.metadata.version(distribution)}"
