"""The credentials of a policy, by the requests that their rules cover. Knows where secrets are, and none of them."""

from collections.abc import Sequence

from nyx_stream.guard.request_table import Origin, RequestTable
from nyx_stream.policy import Credential


class CredentialTable:
    """Finds the credentials of a request. A rule is matched as an allow rule is: no encoded separator in its path."""

    __slots__ = ("_rows",)

    def __init__(self, credentials: Sequence[Credential]) -> None:
        self._rows = [(item, RequestTable((item.rule,))) for item in credentials]

    def covering(self, origin: Origin, method: str, path: str) -> tuple[Credential, ...]:
        """Returns the credentials of an allowed request; of two for one header, the one that is listed first."""
        found: dict[str, Credential] = {}
        for item, table in self._rows:
            if table.allow(origin, method, path) is not None:
                found.setdefault(item.header.lower(), item)
        return tuple(found.values())
