"""A shared library that is not there: its functions go through real ctypes calls, are recorded, and answer as
told.

What the code under test declares (`restype`, `argtypes`) is what converts the arguments, as with a real
library: a wrong type or count fails here too.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordedFunction:
    """One function: set `restype` and `argtypes`, then call."""

    def __init__(self, name: str, behaviour: Callable[..., Any], calls: list[tuple[Any, ...]]) -> None:
        self.restype: Any = ctypes.c_int
        self.argtypes: list[Any] | None = None
        self._name = name
        self._behaviour = behaviour
        self._calls = calls

    def __call__(self, *arguments: Any) -> Any:
        """Call through ctypes; the behaviour sees what C would see."""
        if self.argtypes is None:
            raise TypeError(f"{self._name} is called without argtypes")
        if len(arguments) != len(self.argtypes):
            raise TypeError(f"{self._name} takes {len(self.argtypes)} arguments, got {len(arguments)}")
        prototype = ctypes.CFUNCTYPE(self.restype, *self.argtypes, use_errno=True)
        return prototype(self._body)(*arguments)

    def _body(self, *arguments: Any) -> Any:
        self._calls.append((self._name, *arguments))
        return self._behaviour(*arguments)


class RecordedLibrary:
    """Functions by name. `calls` holds every call made, in order, as `(name, *arguments)`."""

    def __init__(self, **behaviours: Callable[..., Any]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.functions = {name: RecordedFunction(name, behaviour, self.calls) for name, behaviour in behaviours.items()}

    def __getattr__(self, name: str) -> RecordedFunction:
        try:
            return self.functions[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def order(self) -> list[str]:
        """Names of the calls made, in order."""
        return [call[0] for call in self.calls]
