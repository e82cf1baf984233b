"""What the rules in force have allowed so far, so that the next check of it is one look-up.

It belongs to the rules and goes with them. Only what was allowed is remembered, and a bounded number of each kind, so a
flood of misses neither grows it nor empties it. Knows nothing of how it was decided.
"""

import re

from nyx_stream.guard.decision import RequestVerdict

REMEMBERED = 4096
"""Allowed targets that are remembered, of each kind; hosts and zones by port."""

_PORTS = 16
_LONGEST = 1024

LONGEST_LABEL = 63
"""Characters of a label (RFC 1035, section 2.3.4)."""

# Both find what is wrong, not what is right: where a pattern finds nothing, no match object is made, and a search for
# one character out of a set is the cheapest there is. So a label without a hyphen, where nothing but its characters and
# its length can be wrong, is worth a pattern of its own.
odd_character = re.compile(r"[^a-z0-9_]").search
"""Finds a character that stands in no label, or a hyphen."""

no_label = re.compile(r"(?!(?!xn--|-)[a-z0-9_-]{1,63}(?<!-)\Z)").match
"""Matches what is not one label in canonical spelling; an A-label, which takes a further look, counts as none."""


class DecisionCache:
    """All that was allowed."""

    __slots__ = ("connects", "folders", "requests", "zones")

    def __init__(self) -> None:
        # By port, the hosts as they were given; and the canonical names below which every single label is allowed.
        self.connects: dict[int, set[str]] = {}
        self.zones: dict[int, set[str]] = {}
        self.requests: dict[tuple[str, object], RequestVerdict] = {}
        # By mode, the folders, as normal text, in which every name is allowed.
        self.folders: dict[str, set[str]] = {"r": set(), "rw": set()}

    def keep_connect(self, host: str, port: int, zone: str | None) -> None:
        """Remembers an allowed host and, where every single label below `zone` is allowed too, its zone."""
        if port not in self.connects:
            if len(self.connects) >= _PORTS:
                self.connects.clear()
                self.zones.clear()
            self.zones[port] = set()
            self.connects[port] = set()
        _keep(self.connects[port], host)
        if zone is not None:
            _keep(self.zones[port], zone)

    def keep_request(self, key: tuple[str, object], verdict: RequestVerdict) -> None:
        """Remembers an allowed request under its method and URL."""
        if len(verdict.target) > _LONGEST:
            return
        if len(self.requests) >= REMEMBERED:
            self.requests.clear()
        self.requests[key] = verdict

    def keep_folder(self, folder: str, mode: str) -> None:
        """Remembers a folder in which every name is allowed."""
        _keep(self.folders[mode], folder)


def _keep(known: set[str], text: str) -> None:
    if len(text) > _LONGEST:
        return
    if len(known) >= REMEMBERED:
        known.clear()
    known.add(text)
