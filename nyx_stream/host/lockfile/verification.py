"""Whether what lies where a plugin is loaded from may run, by what a lock file has accepted before.

The first version seen is accepted. The same version must have the same content; another version may want no more than
the accepted one, or waits until somebody accepts it. What may run is recorded when it runs: one that does not start
leaves the record of the one before. Everything here blocks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nyx_stream.errors import ContentChanged
from nyx_stream.host.approvals.store import Standing
from nyx_stream.host.lockfile.content_hash import content_hash
from nyx_stream.host.lockfile.file import LockedApproval, LockedPermission, LockedPlugin, LockFile
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy.approval import KINDS, parse_target
from nyx_stream.policy.coverage import covers
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import Rule, RuleError
from nyx_stream.text import escape


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a lock file says to what lies on the disk.

    Attributes:
        found: what lies there.
        known: what was recorded, or `None`.
        more: what it wants that the recorded version does not.
        refused: why it may not run, or `None`.
    """

    found: LockedPlugin
    known: LockedPlugin | None
    more: tuple[LockedPermission, ...] = ()
    refused: str | None = None

    @property
    def changed(self) -> bool:
        """Whether it is the recorded version with another content."""
        return self.known is not None and self.found.version == self.known.version and self.refused is not None


def admit(lock: LockFile, manifest: Manifest, content: str) -> Verdict:
    """Compares a version and its content with what is recorded; records nothing.

    Raises:
        LockError: the lock file is broken.
        OSError: it cannot be read.
    """
    return _judge(described(manifest, content), lock.read().get(manifest.id))


def record(
    lock: LockFile, name: str, found: LockedPlugin, approvals: Iterable[Standing], runs: Callable[[], bool]
) -> Verdict:
    """Records what was admitted, and what was approved of it meanwhile, if `runs` says that it still runs.

    The record may have changed since: what it says now decides.

    Raises:
        LockError, OSError: it cannot be recorded.
    """
    with lock.changing() as plugins:
        verdict = _judge(found, plugins.get(name))
        if verdict.refused is None and verdict.found != verdict.known and runs():
            plugins[name] = found.model_copy(update={"approvals": _lasting(approvals)})
    return verdict


def accept(lock: LockFile, source: PluginSource, content: str | None = None) -> Verdict:
    """Accepts what lies on the disk, whatever it wants; what was approved of another content is forgotten.

    Args:
        lock: the lock file.
        source: the plugin.
        content: accept nothing else than this.

    Raises:
        ContentChanged: it is something else by now.
        LockError: the lock file is broken, or cannot be written.
        PluginLoadError, OSError: something cannot be read.
    """
    name = source.manifest.id
    with lock.changing() as plugins:
        verdict = compare(source, plugins.get(name))
        if content is not None and verdict.found.content != content:
            raise ContentChanged(name, "its content has changed since it was refused: look at it again")
        plugins[name] = verdict.found
    return verdict


def keep(lock: LockFile, plugin: str, content: str, approvals: Iterable[Standing]) -> None:
    """Records approvals of a plugin beside those that are recorded, which another host may have written.

    Nothing is recorded if the content that they are for is not the accepted one.

    Raises:
        LockError, OSError: they cannot be recorded.
    """
    lasting = _lasting(approvals)
    with lock.changing() as plugins:
        known = plugins.get(plugin)
        if known is not None and known.content == content:
            new = {(item.kind, item.rule) for item in lasting}
            others = [item for item in known.approvals if (item.kind, item.rule) not in new]
            plugins[plugin] = known.model_copy(update={"approvals": [*others, *lasting]})


def forget(lock: LockFile, plugin: str, kind: str | None, rule: str | None) -> list[LockedApproval]:
    """Takes recorded approvals of a plugin back, whatever content they are for; returns them. Raises as `keep`."""
    gone: list[LockedApproval] = []
    with lock.changing() as plugins:
        known = plugins.get(plugin)
        if known is not None:
            gone = [item for item in known.approvals if kind in (None, item.kind) and rule in (None, item.rule)]
            left = [item for item in known.approvals if item not in gone]
            plugins[plugin] = known.model_copy(update={"approvals": left})
    return gone


def compare(source: PluginSource, known: LockedPlugin | None) -> Verdict:
    """Compares what lies on the disk with what was recorded. Raises as `read_content`."""
    return _judge(described(source.manifest, content_hash(source)), known)


def described(manifest: Manifest, content: str) -> LockedPlugin:
    """Returns what is recorded of a version, without approvals."""
    return LockedPlugin(version=manifest.version, content=content, permissions=_wanted(manifest))


def _judge(found: LockedPlugin, known: LockedPlugin | None) -> Verdict:
    if known is None:
        return Verdict(found, None)
    if found.content == known.content and found.version == known.version:
        return Verdict(known, known)
    more = tuple(item for item in found.permissions if not _is_covered(item, known.permissions))
    if found.version == known.version:
        return Verdict(found, known, more, f"its content is not what was accepted as version {known.version}")
    if more:
        wants = ", ".join(f"{item.kind} {escape(item.rule, 200)}" for item in more)
        waits = f"update waiting: version {found.version} wants more than {known.version}: {wants}"
        return Verdict(found, known, more, waits)
    return Verdict(found, known)


def _lasting(approvals: Iterable[Standing]) -> list[LockedApproval]:
    return [
        LockedApproval(kind=item.permission.kind, rule=item.permission.rule.text, verdict=verdict, until=item.until)
        for item in approvals
        if (verdict := item.verdict) == "until" or verdict == "always"
    ]


def _wanted(manifest: Manifest) -> list[LockedPermission]:
    rules = [
        *(LockedPermission(kind="connect", rule=rule.text) for rule in manifest.connect),
        *(LockedPermission(kind="request", rule=rule.text) for rule in manifest.request),
        *(LockedPermission(kind="read" if rule.mode == "r" else "write", rule=rule.text) for rule in manifest.paths),
        *(LockedPermission(kind="env", rule=name) for name in manifest.env),
    ]
    return list(dict.fromkeys(rules))


def _is_covered(wanted: LockedPermission, known: Iterable[LockedPermission]) -> bool:
    if wanted in known:
        return True
    rule = _rule(wanted)
    return rule is not None and any(covers(own, rule) for item in known if (own := _rule(item)) is not None)


def _rule(item: LockedPermission) -> Rule | None:
    """Returns the rule of a permission; `None` for a variable, and for what does not parse any more."""
    kind = next((own for own in KINDS if own == item.kind), None)
    try:
        return None if kind is None else parse_target(kind, item.rule)
    except RuleError:
        return None
