"""Checks where a path really led: the text of a path can't show that it reaches a denied place or plugin code.

A deny rule that names a link also denies what the link leads to. The links are resolved once per policy.
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
    """The decision of a judge, on its way to the code that audits it and raises the plugin's error."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(decision.reason)


@dataclass(frozen=True, slots=True)
class _PolicyIndex:
    """What was resolved for one policy."""

    policy: SandboxPolicy
    denied: dict[str, str]
    """The texts of its deny rules, by the key of the path that each leads to."""
    allowed_prefixes: dict[tuple[str, Mode], bool]
    """Whether a granted prefix is allowed as a whole."""


class AccessChecker:
    """Makes the judges for the operations of one capability. Safe to use from many threads.

    `places` are the directories of `$DATA` and `$PLUGIN`, as the guard has them; `protected` plugin code's own paths.
    """

    __slots__ = ("_guard", "_index", "_places", "_protected")

    def __init__(self, guard: SandboxGuard, places: Places, protected: ImportPaths) -> None:
        self._guard = guard
        self._places = places
        self._protected = protected
        self._index: _PolicyIndex | None = None

    def import_path_refusal(self, path: str, access: Access) -> Decision | None:
        """Returns the refusal to change plugin code at an absolute path, or `None` if `path` is not protected."""
        if self._protected.touched_by(path, access):
            return Decision(False, None, "plugin code is imported from there, so it is never written")
        return None

    def judge(self, prefix: str, access: Access) -> Judge | None:
        """Returns the judge for an operation below `prefix`, or `None` if no rule could refuse any file there."""
        mode: Mode = "r" if access == "read" else "rw"
        index = self._index
        if index is None or index.policy is not self._guard.policy:
            policy = self._guard.policy
            rules = policy.bind(self._places).denied_paths
            denied = {path_key(os.path.realpath(rule.prefix)): rule.text for rule in rules}
            index = self._index = _PolicyIndex(policy, denied, {})
        allowed = index.allowed_prefixes.get((prefix, mode))
        if allowed is None:
            allowed = index.allowed_prefixes[prefix, mode] = self._guard.decide_path(prefix, mode).allowed
        if allowed and not index.denied and (access == "read" or not self._protected):
            return None
        denied = index.denied

        def judge(below: str, absolute: str) -> None:
            path = os.path.join(prefix, below) if below else prefix
            # A link can lead from a path that the plugin asked for in its manifest to one that it didn't, both below
            # the same prefix of the policy.
            decision = self._guard.decide_path(path, mode)
            if not decision.allowed:
                raise AccessRefused(decision)
            for reached in {path, absolute, path.removesuffix(_GONE), absolute.removesuffix(_GONE)}:
                self._refuse_denied(normalise(reached), access, denied)

        return judge

    def _refuse_denied(self, path: str, access: Access, denied: dict[str, str]) -> None:
        denying_rule = self._guard.denies_below if access == "move" else self._guard.is_denied_path
        rule = denying_rule(path)
        if rule is None:
            key = path_key(path)
            rule = next((text for own, text in denied.items() if touches(own, key, access)), None)
        if rule is not None:
            raise AccessRefused(Decision(False, rule, f"it leads to what the rule {rule} denies"))
        if (decision := self.import_path_refusal(path, access)) is not None:
            raise AccessRefused(decision)
