"""What httpx and httpx2 call the same things. The gates are written once, against this table; neither library is
imported here.
"""

from dataclasses import dataclass
from typing import Any

import httpcore2

from nyx_stream.errors import LimitExceeded, NetworkDenied, Revoked


@dataclass(frozen=True, slots=True)
class LibraryAdapter:
    """One library: its module, and the classes through which the guarded client answers in its terms.

    `denied`, `revoked` and `exceeded` are also the library's RequestError, and no TransportError, so that layers which
    retry transport faults leave them alone.
    """

    library: Any
    body: Any
    response: Any
    transport: Any
    denied: type[NetworkDenied]
    revoked: type[Revoked]
    exceeded: type[LimitExceeded]

    def fault(self, error: Exception) -> Exception | None:
        """The library's error for an httpcore2 error, most specific first; `None` if it is not one of those."""
        for kind in type(error).__mro__:
            if kind.__module__.split(".")[0] == httpcore2.__name__:
                mapped = getattr(self.library, kind.__name__, None)
                if mapped is not None:
                    return mapped(str(error))  # type: ignore[no-any-return]  # a class of the library
        return None


class WithRequest:
    """Mixed into the errors of a dialect: their `request`, built when it is asked for."""

    _request: Any = None

    @property
    def request(self) -> Any:
        """The request that was refused, as the library's own type."""
        if callable(self._request):
            self._request = self._request()
        if self._request is None:
            raise RuntimeError("The .request property has not been set.")
        return self._request

    @request.setter
    def request(self, request: Any) -> None:
        self._request = request
