"""The decision point: decides, audits and explains. It performs nothing itself.

A check first looks in what the rules in force have allowed before; see `decision_cache`.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nyx_core.beneath.text import NATIVE, Flavour
from nyx_stream.audit import AuditEvent
from nyx_stream.audit.event import Layer
from nyx_stream.errors import FilesystemDenied, NetworkDenied, SandboxDenied
from nyx_stream.guard.compiled_policy import CompiledPolicy
from nyx_stream.guard.decision import OUTSIDE, Decision, PathVerdict, RequestVerdict
from nyx_stream.guard.decision_cache import (
    MAX_ENTRIES,
    MAX_LABEL_LENGTH,
    DecisionCache,
    find_bad_character,
    match_bad_label,
)
from nyx_stream.guard.explain import explain_connect, explain_path, explain_request
from nyx_stream.guard.url_parts import is_url, read_plain
from nyx_stream.policy import NO_PLACES, ConnectRule, Limits, Places, RequestRule, SandboxPolicy
from nyx_stream.policy.coverage import covers

if TYPE_CHECKING:
    from nyx_stream.policy.manifest import Manifest

Denied = TypeVar("Denied", bound=SandboxDenied)


class SandboxGuard:
    """The compiled form of a policy, for one plugin or for none.

    `check_…` returns `None` or raises, and is audited. `decide_…` returns a `Decision`, never raises and isn't audited.
    `judge_…` also returns the canonical parts that a capability acts on.

    Args:
        policy: what is granted.
        manifest: what the plugin asks for; if given, nothing else is allowed.
        plugin: id for errors and audit events; the manifest's by default.
        places: the directories of `$DATA` and `$PLUGIN`.
        audit: called with every decision of `check_…` and `record`; must neither block nor raise.
        flavour: the syntax of paths, `"posix"` or `"windows"`; the platform's by default.
    """

    __slots__ = ("_audit", "_flavour", "_manifest", "_places", "_state", "plugin")

    def __init__(
        self,
        policy: SandboxPolicy,
        *,
        manifest: "Manifest | None" = None,
        plugin: str | None = None,
        places: Places = NO_PLACES,
        audit: Callable[[AuditEvent], None] | None = None,
        flavour: Flavour = NATIVE,
    ) -> None:
        self.plugin = plugin if plugin is not None or manifest is None else manifest.id
        self._manifest = manifest
        self._places = places
        self._audit = audit
        self._flavour = flavour
        self._state = DecisionCache(CompiledPolicy(policy, manifest, places, flavour))

    @property
    def policy(self) -> SandboxPolicy:
        """The policy in force."""
        return self._rules.policy

    @property
    def limits(self) -> Limits:
        """The limits in force: the policy's, or the manifest's where it asks for less."""
        return self._rules.limits

    @property
    def _rules(self) -> CompiledPolicy:
        return self._state.rules

    def update(self, policy: SandboxPolicy) -> None:
        """Puts another policy in force, atomically. A check in progress still uses the old one."""
        self._state = DecisionCache(CompiledPolicy(policy, self._manifest, self._places, self._flavour))

    def check_connect(self, host: str, port: int) -> None:
        """Returns if a connection is granted; raises `NetworkDenied` otherwise."""
        try:
            state = self._state
            hosts = state.connects[port]
            # The exact types exclude 443.0 and objects that only claim to equal a cached port or host.
            if type(host) is str and type(port) is int:
                if host in hosts:
                    return
                # A new host in a cached zone: only its first label needs checking.
                label, _, zone = host.partition(".")
                if zone in state.zones[port] and (
                    match_bad_label(label) is None
                    if "-" in label
                    else label and find_bad_character(label) is None and len(label) <= MAX_LABEL_LENGTH
                ):
                    if len(hosts) < MAX_ENTRIES:
                        hosts.add(host)
                    return
        except (KeyError, TypeError):  # a port that isn't cached, or isn't hashable
            pass
        self._check_connect(host, port)

    def check_request(self, method: str, url: Any) -> None:
        """Returns if a request is granted; raises `NetworkDenied` otherwise. `url` is a `str` or an `httpx.URL`."""
        verdict = self.judge_request(method, url)
        if self._audit is not None:
            self.record("http", str(method), str(url), verdict.decision)
        if not verdict.decision.allowed:
            raise self.request_error(str(method), url, verdict.decision)

    def check_path(self, path: str | os.PathLike[str], mode: str = "r") -> None:
        """Returns if a path is granted by its text; raises `FilesystemDenied` otherwise. `mode` is `"r"` or `"rw"`.

        Only opening the path shows where links lead; the files capability decides on that as well.
        """
        if type(path) is str:
            folder, _, name = path.rpartition("/")
            # A printable name has no NUL and no surrogate; "", "." and ".." are empty once stripped of dots.
            if folder in self._state.folders.get(mode, ()) and name.isprintable() and name.strip("."):
                return
        self._check_path(path, mode)

    def decide_connect(self, host: str, port: int) -> Decision:
        """Decides on a bare connection, by name or address."""
        return self._state.rules.connect(host, port)

    def decide_request(self, method: str, url: Any) -> Decision:
        """Decides on a request. `url` is a `str` or an `httpx.URL`."""
        return self.judge_request(method, url).decision

    def decide_path(self, path: str | os.PathLike[str], mode: str = "r") -> Decision:
        """Decides on a path by its text. `mode` is `"r"` or `"rw"`."""
        try:
            text = path_text(path)
        except Exception as error:  # raised by the path object; a decision never raises
            return Decision(False, None, f"not a path: {type(error).__name__}")
        return self.judge_path(text, mode).decision

    def decide_addresses(self, host: str, port: int, addresses: Sequence[str]) -> Decision:
        """Decides on all answers of one look-up of `host`: every address must pass."""
        return self._state.rules.addresses(host, port, addresses)

    def judge_request(self, method: str, url: Any) -> RequestVerdict:
        """Decides on a request and returns the canonical parts that may be sent."""
        state = self._state
        key: tuple[str, object] | None = None
        if type(method) is str:
            if type(url) is str:
                key = (method, url)
            elif is_url(url):
                # The parsed parts of the URL: a tuple, which hashes faster than the URL. A plugin that plants another
                # object here can at most get an allowed verdict with the parts that it was allowed for.
                key = (method, url._uri_reference)
        try:
            cached = state.requests.get(key) if key is not None else None
        except TypeError:
            key = cached = None
        if cached is not None:
            return cached
        verdict = state.rules.request(method, url)
        if verdict.decision.allowed and key is not None:
            state.add_request(key, verdict)
        return verdict

    def judge_plain(self, method: str, url: str) -> RequestVerdict | None:
        """Like `judge_request`, for a URL text that all parsers read alike; returns `None` for any other text.

        A client can call this before it parses the text: the parser of `httpx` costs more than this decision.
        """
        return self.judge_request(method, url) if type(url) is str and read_plain(url) is not None else None

    def judge_origin(self, host: str, port: int) -> Decision:
        """Decides whether an origin may be dialled, for a connection or for some request."""
        return self._state.rules.dial(host, port)

    def judge_path(self, path: str | os.PathLike[str], mode: str = "r") -> PathVerdict:
        """Decides on a path by its text and returns what to open, and below which prefix."""
        return self._state.rules.path(path_text(path), mode)

    def holds(self, rule: RequestRule) -> bool:
        """Returns whether one rule grants every request that `rule` covers, and one rule asks for all of them.

        Deny rules aren't considered: they still apply to each request. Never returns true wrongly.
        """
        policy, asked = self._state.rules.policy.merged(), self._manifest
        sides: list[tuple[ConnectRule | RequestRule, ...]] = [(*policy.request, *policy.connect)]
        if asked is not None:
            sides.append((*asked.request, *asked.connect))
        return all(any(covers(own, rule) for own in side) for side in sides)

    def is_denied_path(self, canonical: str) -> str | None:
        """Returns the text of a deny rule that covers an absolute, normal path, or `None`."""
        rule = self._rules.denies_path(canonical)
        return None if rule is None else rule.text

    def denies_below(self, canonical: str) -> str | None:
        """Returns the text of a deny rule that covers an absolute, normal path or a path below it, or `None`."""
        rule = self._rules.denies_path(canonical, below=True)
        return None if rule is None else rule.text

    def record(self, capability: str, action: str, target: str, decision: Decision, layer: Layer = "guard") -> None:
        """Audits one decision."""
        if self._audit is not None:
            # Positional, because naming the nine fields would add half to the cost.
            now, rule, reason = time.time(), decision.rule, decision.reason
            self._audit(AuditEvent(now, self.plugin, capability, action, target, decision.allowed, rule, reason, layer))

    def denial(
        self,
        kind: type[Denied],
        capability: str,
        action: str,
        target: str,
        decision: Decision,
        hint: Callable[[], str] | str = "",
    ) -> Denied:
        """Returns the error for a denied operation. No change of policy allows a target outside a narrowed grant."""
        return kind(
            plugin=self.plugin,
            capability=capability,
            action=action,
            target=target,
            rule=decision.rule,
            reason=decision.reason,
            hint="" if decision is OUTSIDE else hint,
        )

    def request_error(
        self, method: str, url: Any, decision: Decision, kind: type[NetworkDenied] = NetworkDenied
    ) -> NetworkDenied:
        """Returns the error for a denied request; its text says what would allow it."""
        hint = partial(explain_request, self._rules, method, url)
        return self.denial(kind, "http", method, str(url), decision, hint)

    def connect_error(
        self, host: str, port: int, decision: Decision, kind: type[NetworkDenied] = NetworkDenied
    ) -> NetworkDenied:
        """Returns the error for a denied connection; its text says what would allow it."""
        hint = partial(explain_connect, self._rules, host, port)
        return self.denial(kind, "connect", "connect", f"{host}:{port}", decision, hint)

    def path_error(self, verdict: PathVerdict, action: str, target: str, mode: str) -> FilesystemDenied:
        """Returns the error for a path that is denied by its text; the error's text says what would allow it."""
        hint = partial(explain_path, self._rules, verdict.path, mode)
        return self.denial(FilesystemDenied, "files", action, target, verdict.decision, hint)

    def _check_connect(self, host: str, port: int) -> None:
        state = self._state
        decision = state.rules.connect(host, port)
        self._finish_connect(host, port, decision)
        # An ApprovedDecision can end without a change of policy; an audit must record every check.
        if self._audit is None and type(decision) is Decision:
            state.add_connect(host, port, state.rules.open_zone(host, port))

    def _check_path(self, path: str | os.PathLike[str], mode: str) -> None:
        state = self._state
        text = path_text(path)
        self._finish_path(text, mode, state.rules.path(text, mode))
        if self._audit is None and (folder := state.rules.open_folder(text, mode)) is not None:
            state.add_folder(folder, mode)

    def _finish_connect(self, host: str, port: int, decision: Decision) -> None:
        if self._audit is not None:
            self.record("connect", "connect", f"{host}:{port}", decision)
        if not decision.allowed:
            raise self.connect_error(host, port, decision)

    def _finish_path(self, text: str, mode: str, verdict: PathVerdict) -> None:
        action = "read" if mode == "r" else "write"
        self.record("files", action, text, verdict.decision)
        if not verdict.decision.allowed:
            raise self.path_error(verdict, action, text, mode)


def path_text(path: object) -> str:
    """Converts a path to text. Call it once for each path: a path object may return another text the next time.

    Raises:
        TypeError: `path` is neither text nor a path object of text.
    """
    text = os.fspath(path)  # type: ignore[call-overload]  # raises TypeError for other objects
    if not isinstance(text, str):
        raise TypeError("a path is text, not bytes")
    # The characters of a subclass of `str`, without calling its methods.
    return text if type(text) is str else str.__str__(text)
