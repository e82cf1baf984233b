"""Peers: packages with the same aim, timed beside Nyx where they are installed (`pip install nyx-sandbox[bench]`)."""

import importlib
import importlib.metadata
from types import ModuleType

PEERS = ("httpx-secure", "httpx2", "nono-py", "sandlock", "ssrfguard")
"""The distributions, as the extra `bench` names them."""


def survey() -> dict[str, str]:
    """Returns the version of each peer, `""` where it is not installed."""
    found: dict[str, str] = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def peer(module: str) -> ModuleType | str:
    """Returns the module of a peer, or the reason why there is none."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return f"{module} is not installed here ({error})"


def version(distribution: str) -> str:
    """Returns name and version of an installed distribution."""
    return f"{distribution} {importlib.metadata.version(distribution)}"
