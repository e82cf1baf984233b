"""A fake shared library: calls go through real ctypes, are recorded, and return configured results.

The `restype` and `argtypes` that the tested code declares convert the arguments, as with a real library. So a wrong
type or number of arguments fails here too.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordedFunction:
    """A function: set `restype` and `argtypes`, then call it."""

    def __init__(self, name: str, behaviour: Callable[..., Any], calls: list[tuple[Any, ...]]) -> None:
        self.restype: Any = ctypes.c_int
        self.argtypes: list[Any] | None = None
        self._name = name
        self._behaviour = behaviour
        self._calls = calls

    def __call__(self, *arguments: Any) -> Any:
        """Call through ctypes; the behaviour gets the arguments that C would get."""
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
    """Functions by name. `calls` has every call, in order, as `(name, *arguments)`."""

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
        """Names of the calls, in order."""
        return [call[0] for call in self.calls]
