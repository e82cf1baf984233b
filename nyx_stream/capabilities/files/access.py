"""What the text cannot tell: whether the place that a path really led to is denied, or is plugin code.

Asks the system once per policy where the deny rules lead to. Knows nothing of leases and files.
"""

import os
from dataclasses import dataclass

from nyx_core.beneath import Judge
from nyx_core.beneath.text import normalise
from nyx_stream.capabilities.import_paths import Access, ImportPaths, path_key, touches
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.policy import Mode, Places, SandboxPolicy

_GONE = " (deleted)"  # what Linux appends to the path of a descriptor without a name (proc_pid_fd(5))


class AccessRefused(Exception):
    """A judge's answer; carried to where it is audited and becomes the plugin's error."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(decision.reason)


@dataclass(frozen=True, slots=True)
class _PolicyIndex:
    """What was found out about one policy: its deny rules by where they lead to, and which prefixes are
    granted as a whole, by prefix and mode."""

    policy: SandboxPolicy
    denied: dict[str, str]
    whole: dict[tuple[str, Mode], bool]


class AccessChecker:
    """Makes the judges of one capability. Used by many threads.

    Args:
        guard: whose rules hold.
        places: the directories of `$DATA` and `$PLUGIN`, as the guard knows them.
        protected: where plugin code is imported from.
    """

    __slots__ = ("_guard", "_places", "_protected", "_sheet")

    def __init__(self, guard: SandboxGuard, places: Places, protected: ImportPaths) -> None:
        self._guard = guard
        self._places = places
        self._protected = protected
        self._sheet: _PolicyIndex | None = None

    def refuses_text(self, path: str, access: Access) -> Decision | None:
        """The refusal to write where plugin code is imported from, by an absolute path's text, or `None`."""
        if self._protected.touched_by(path, access):
            return Decision(False, None, "plugin code is imported from there, so it is never written")
        return None

    def judge(self, prefix: str, access: Access) -> Judge | None:
        """The judge for an operation below `prefix`; `None` if no rule could refuse what is opened there."""
        mode: Mode = "r" if access == "read" else "rw"
        sheet = self._current_sheet()
        whole = sheet.whole.get((prefix, mode))
        if whole is None:
            whole = sheet.whole[prefix, mode] = self._guard.decide_path(prefix, mode).allowed
        if whole and not sheet.denied and (access == "read" or not self._protected):
            return None

        def judge(below: str, absolute: str) -> None:
            text = os.path.join(prefix, below) if below else prefix
            # A link may lead from what the plugin asked for to what it did not, below one prefix of the policy.
            decision = self._guard.decide_path(text, mode)
            if not decision.allowed:
                raise AccessRefused(decision)
            for place in {text, absolute, text.removesuffix(_GONE), absolute.removesuffix(_GONE)}:
                self._refuse(normalise(place), access, sheet.denied)

        return judge

    def _refuse(self, place: str, access: Access, denied: dict[str, str]) -> None:
        ask = self._guard.denies_below if access == "move" else self._guard.is_denied_path
        rule = ask(place)
        if rule is None:
            key = path_key(place)
            rule = next((text for own, text in denied.items() if touches(own, key, access)), None)
        if rule is not None:
            raise AccessRefused(Decision(False, rule, f"it leads to what the rule {rule} denies"))
        if (decision := self.refuses_text(place, access)) is not None:
            raise AccessRefused(decision)

    def _current_sheet(self) -> _PolicyIndex:
        policy, sheet = self._guard.policy, self._sheet
        if sheet is None or sheet.policy is not policy:
            # A rule that names a link denies what the link leads to as well.
            rules = policy.bind(self._places).denied_paths
            denied = {path_key(os.path.realpath(rule.prefix)): rule.text for rule in rules}
            sheet = self._sheet = _PolicyIndex(policy, denied, {})
        return sheet
