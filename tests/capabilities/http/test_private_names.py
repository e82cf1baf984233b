"""The private names of httpx and httpx2 that the guarded client uses: a version that renames one of them fails here."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from nyx_stream.capabilities.http.client_mixin import GuardedClientMixin
from nyx_stream.capabilities.http.library_adapter import GuardedResponse
from nyx_stream.capabilities.http.service import FaultKind

CLIENT = {
    "_build_redirect_request", "_build_request_auth", "_default_encoding", "_event_hooks", "_merge_url",
    "_send_handling_auth", "_send_handling_redirects", "_send_single_request", "_set_timeout", "_state",
}  # fmt: skip
"""Methods that the client overrides or calls, and attributes that it reads or sets."""
RESPONSE = {"_content", "_num_bytes_downloaded", "_request"}


def _functions(kind: type) -> Iterator[Any]:
    for base in kind.__mro__[:-1]:
        for value in vars(base).values():
            for function in (value, getattr(value, "fget", None), getattr(value, "fset", None)):
                if inspect.isfunction(function):
                    yield inspect.unwrap(function)


def _private_names(kind: type) -> set[str]:
    """The private names that a class has, or that its methods use."""
    used = {name for function in _functions(kind) for name in function.__code__.co_names} | set(dir(kind))
    return {name for name in used if name.startswith("_") and not name.startswith("__")}


def _classes(kind: Any) -> list[tuple[type, type, set[str]]]:
    library = kind.adapter.library
    return [(GuardedClientMixin, library.AsyncClient, CLIENT), (GuardedResponse, library.Response, RESPONSE)]


def test_the_private_names_exist(kind: Any) -> None:
    """The library's own class has each of them, or uses it."""
    for _, theirs, names in _classes(kind):
        assert names - _private_names(theirs) == set()
    state = type(kind.adapter.library.AsyncClient()._state)
    assert {"OPENED", "CLOSED"} <= set(state.__members__)


def test_no_other_private_name_is_used(kind: Any) -> None:
    """What a mixin shares with the library's class is what the lists name."""
    for mixin, theirs, names in _classes(kind):
        assert _private_names(mixin) & _private_names(theirs) == names


@pytest.mark.parametrize("fault", FaultKind)
def test_every_fault_is_an_error_of_the_library(kind: Any, fault: FaultKind) -> None:
    """`FaultKind` has the names of public error classes."""
    assert issubclass(getattr(kind.adapter.library, fault.value), kind.adapter.library.RequestError)
