"""The compiled rules of one side: allowed, denied, asked for, or on trial. Pure; knows nothing of the other sides."""

from collections.abc import Sequence

from nyx_core.beneath.text import Flavour
from nyx_stream.guard.host_table import HostTable
from nyx_stream.guard.path_table import PathTable
from nyx_stream.guard.request_table import Origin, RequestTable
from nyx_stream.policy import ConnectRule, Mode, PathRule, RequestRule
from nyx_stream.policy.hosts import address_number, is_address


class Rules:
    """The compiled rules of one side: allowed, denied or asked for."""

    __slots__ = ("hosts", "paths", "requests", "writable")

    def __init__(
        self,
        connect: Sequence[ConnectRule],
        request: Sequence[RequestRule],
        paths: Sequence[PathRule],
        flavour: Flavour,
    ) -> None:
        self.hosts = HostTable(connect)
        self.requests = RequestTable(request)
        self.paths = PathTable(paths, flavour)
        self.writable = PathTable([rule for rule in paths if rule.mode == "rw"], flavour)

    def allows_connection(self, host: str, port: int) -> ConnectRule | None:
        return self.hosts.match(host, port)

    def allows_dialling(self, host: str, port: int) -> ConnectRule | RequestRule | None:
        return self.hosts.match(host, port) or self.requests.any_of(host, port)

    def allows_request(self, origin: Origin, method: str, path: str) -> ConnectRule | RequestRule | None:
        rule = self.requests.allow(origin, method, path)
        if rule is None and origin[0] in ("http", "https"):
            return self.hosts.match(origin[1], origin[2])
        return rule

    def allows_path(self, key: str, mode: Mode) -> PathRule | None:
        return (self.paths if mode == "r" else self.writable).covering(key)

    def lists_address(self, version: int, number: int, address: str, port: int) -> ConnectRule | RequestRule | None:
        """Returns a rule that names an address itself, or its network."""
        return self.hosts.match_address(version, number, port) or self.requests.any_of(address, port)

    def denies_host(self, host: str, port: int) -> ConnectRule | None:
        """Returns a deny rule for a host; an address is denied in any spelling."""
        if is_address(host):
            return self.hosts.match_any_spelling(*address_number(host), port)
        return self.hosts.match(host, port)

    def denies_request(self, origin: Origin, method: str, path: str) -> ConnectRule | RequestRule | None:
        """Returns a deny rule for a request."""
        return self.denies_host(origin[1], origin[2]) or self.requests.deny(origin, method, path)
