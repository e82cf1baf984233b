"""What the rules in force have allowed so far, so that repeating a check costs one look-up.

Theory of operation
-------------------
A cache holds the compiled policy that it belongs to. The guard replaces that one object in one assignment when the
policy changes, so a check never combines old rules with a new cache, and invalidation needs no further code.
A thread that still holds the old object may add an entry to it; no later check reads it.

Only allowed targets are cached, so a plugin that probes for denied targets can't fill the cache or evict entries.
Connections and folders are cached only if the guard has no audit, because a cached check isn't recorded, and only if no
approval allowed them, because an approval can end while the policy stays the same. Request verdicts are always cached:
the guard records each check itself, and `Decision.use` checks the approval again before the request is sent.

Two kinds of entry cover more than the target that created them:

- A *zone* is a domain below which every single label is allowed at a port. A new host in a cached zone only needs a
  valid label. `CompiledPolicy.open_zone` decides what is a zone.
- A *folder* is a directory in which every name is allowed. A new name in a cached folder only needs to be a plain name.
  `CompiledPolicy.open_folder` decides what is such a folder.

Every table is bounded by `MAX_ENTRIES`. A full table is cleared: that needs no bookkeeping on a hit, and a plugin with
more targets than that only pays the price of the uncached check. Entries with long texts aren't cached.
"""

import re

from nyx_stream.guard.compiled_policy import CompiledPolicy
from nyx_stream.guard.decision import RequestVerdict

MAX_ENTRIES = 4096
"""Entries in each table; hosts and zones are counted for each port."""

_MAX_PORTS = 16
_MAX_TEXT_LENGTH = 1024

MAX_LABEL_LENGTH = 63
"""Characters of a label (RFC 1035, section 2.3.4)."""

# Both patterns find what is wrong. If a pattern finds nothing, no match object is created, and searching for one
# character of a set is the cheapest search there is. A label without a hyphen can only have a wrong character or a
# wrong length, so it gets the cheaper pattern.
find_bad_character = re.compile(r"[^a-z0-9_]").search
"""Finds a character that a label must not contain, or a hyphen."""

match_bad_label = re.compile(r"(?!(?!xn--|-)[a-z0-9_-]{1,63}(?<!-)\Z)").match
"""Matches text that isn't one canonical label. A-labels match too, because they need further validation."""


class DecisionCache:
    """One compiled policy, and the targets that it has allowed so far."""

    __slots__ = ("connects", "folders", "requests", "rules", "zones")

    def __init__(self, rules: CompiledPolicy) -> None:
        self.rules = rules
        # By port, the hosts as they were given; and the canonical names below which every single label is allowed.
        self.connects: dict[int, set[str]] = {}
        self.zones: dict[int, set[str]] = {}
        self.requests: dict[tuple[str, object], RequestVerdict] = {}
        # By mode, the folders, as normal text, in which every name is allowed.
        self.folders: dict[str, set[str]] = {"r": set(), "rw": set()}

    def add_connect(self, host: str, port: int, zone: str | None) -> None:
        """Adds an allowed host and, if every single label below `zone` is allowed too, the zone."""
        if port not in self.connects:
            if len(self.connects) >= _MAX_PORTS:
                self.connects.clear()
                self.zones.clear()
            self.zones[port] = set()
            self.connects[port] = set()
        _add(self.connects[port], host)
        if zone is not None:
            _add(self.zones[port], zone)

    def add_request(self, key: tuple[str, object], verdict: RequestVerdict) -> None:
        """Adds an allowed request under its method and URL."""
        if len(verdict.target) > _MAX_TEXT_LENGTH:
            return
        if len(self.requests) >= MAX_ENTRIES:
            self.requests.clear()
        self.requests[key] = verdict

    def add_folder(self, folder: str, mode: str) -> None:
        """Adds a folder in which every name is allowed."""
        _add(self.folders[mode], folder)


def _add(entries: set[str], text: str) -> None:
    if len(text) > _MAX_TEXT_LENGTH:
        return
    if len(entries) >= MAX_ENTRIES:
        entries.clear()
    entries.add(text)
