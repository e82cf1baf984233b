"""Peers: packages with the same aim, timed beside Nyx where they are installed (`pip install nyx-sandbox[bench]`)."""

import importlib
import importlib.metadata
from types import ModuleType


def peer(module: str) -> ModuleType | str:
    """Returns the module of a peer, or the reason why there is none."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return f"{module} is not installed here ({error})"


def version(distribution: str) -> str:
    """Returns name and version of an installed distribution."""
    return f"{distribution} {importlib.metadata.version(distribution)}"
