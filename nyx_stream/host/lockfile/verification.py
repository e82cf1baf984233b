"""Decides whether a plugin's files may run, by comparison with the lock file, and changes what is recorded.

The first version seen is accepted. The same version must have the same content. Another version runs if it requests no
more than the accepted one; otherwise it waits until the operator accepts it. A version is recorded once it runs, so
that one that doesn't start leaves the record of its predecessor. Every function here blocks.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nyx_stream.errors import ContentChanged
from nyx_stream.host.lockfile.content_hash import read_content
from nyx_stream.host.lockfile.file import LockedApproval, LockedPermission, LockedPlugin, LockFile
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy.coverage import Rule, covers
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.optional import KINDS, parse_target
from nyx_stream.policy.rule import RuleError
from nyx_stream.text import escape


@dataclass(frozen=True, slots=True)
class LockVerdict:
    """The result of comparing a plugin's files with the lock file.

    Attributes:
        found: the version on disk.
        known: the recorded version, or `None`.
        more: the permissions that the version on disk requests and the recorded one doesn't.
        refused: why the version on disk may not run, or `None`.
    """

    found: LockedPlugin
    known: LockedPlugin | None
    more: tuple[LockedPermission, ...] = ()
    refused: str | None = None

    @property
    def changed(self) -> bool:
        """Whether it is refused because the recorded version has another content."""
        return self.known is not None and self.found.version == self.known.version and self.refused is not None


def verify(lock: LockFile, manifest: Manifest, content: str) -> LockVerdict:
    """Compares a version and its content hash with the lock file; records nothing.

    Raises:
        LockError: the lock file is broken.
        OSError: it can't be read.
    """
    return _compare(describe(manifest, content), lock.read().get(manifest.id))


def verify_source(source: PluginSource, known: LockedPlugin | None) -> LockVerdict:
    """Compares the files of a plugin with what was recorded. Raises as `read_content`."""
    return _compare(describe(source.manifest, read_content(source).hash), known)


def record(
    lock: LockFile,
    plugin: str,
    found: LockedPlugin,
    approvals: Sequence[LockedApproval],
    is_running: Callable[[], bool],
) -> LockVerdict:
    """Records a verified version, and what was approved for it meanwhile, if `is_running` says that it still runs.

    Compares again first, because another host may have recorded another version since.

    Raises:
        LockError, OSError: it can't be recorded.
    """
    with lock.changing() as plugins:
        verdict = _compare(found, plugins.get(plugin))
        if verdict.refused is None and verdict.found != verdict.known and is_running():
            plugins[plugin] = found.model_copy(update={"approvals": list(approvals)})
    return verdict


def accept(lock: LockFile, source: PluginSource, content: str | None = None) -> LockVerdict:
    """Records the version on disk whatever it requests. Approvals for another content are dropped.

    Args:
        lock: the lock file.
        source: the plugin.
        content: the only content hash to accept; any if `None`.

    Raises:
        ContentChanged: the plugin has another content by now.
        LockError: the lock file is broken, or can't be written.
        PluginLoadError, OSError: a file can't be read.
    """
    plugin = source.manifest.id
    with lock.changing() as plugins:
        verdict = verify_source(source, plugins.get(plugin))
        if content is not None and verdict.found.content != content:
            raise ContentChanged(plugin, "its content has changed since it was refused: review it again")
        plugins[plugin] = verdict.found
    return verdict


def add_approvals(lock: LockFile, plugin: str, content: str, approvals: Sequence[LockedApproval]) -> None:
    """Adds approvals of a plugin to the recorded ones, which another host may have written.

    Records nothing if `content`, which they are for, isn't the accepted content.

    Raises:
        LockError, OSError: they can't be recorded.
    """
    with lock.changing() as plugins:
        known = plugins.get(plugin)
        if known is not None and known.content == content:
            replaced = {(item.kind, item.rule) for item in approvals}
            kept = [item for item in known.approvals if (item.kind, item.rule) not in replaced]
            plugins[plugin] = known.model_copy(update={"approvals": [*kept, *approvals]})


def remove_approvals(lock: LockFile, plugin: str, kind: str | None, rule: str | None) -> list[LockedApproval]:
    """Removes recorded approvals of a plugin, of one kind and rule or all; returns them. Raises as `add_approvals`."""
    removed: list[LockedApproval] = []
    with lock.changing() as plugins:
        known = plugins.get(plugin)
        if known is not None:
            removed = [item for item in known.approvals if kind in (None, item.kind) and rule in (None, item.rule)]
            kept = [item for item in known.approvals if item not in removed]
            plugins[plugin] = known.model_copy(update={"approvals": kept})
    return removed


def describe(manifest: Manifest, content: str) -> LockedPlugin:
    """Returns the record of a version, without approvals."""
    permissions = (
        *(LockedPermission(kind="connect", rule=rule.text) for rule in manifest.connect),
        *(LockedPermission(kind="request", rule=rule.text) for rule in manifest.request),
        *(LockedPermission(kind="read" if rule.mode == "r" else "write", rule=rule.text) for rule in manifest.paths),
        *(LockedPermission(kind="env", rule=name) for name in manifest.env),
    )
    return LockedPlugin(version=manifest.version, content=content, permissions=list(dict.fromkeys(permissions)))


def _compare(found: LockedPlugin, known: LockedPlugin | None) -> LockVerdict:
    if known is None:
        return LockVerdict(found, None)
    if found.content == known.content and found.version == known.version:
        return LockVerdict(known, known)
    more = tuple(item for item in found.permissions if not _is_covered(item, known.permissions))
    if found.version == known.version:
        return LockVerdict(found, known, more, f"its content differs from what was accepted as version {known.version}")
    if more:
        requests = ", ".join(f"{item.kind} {escape(item.rule, 200)}" for item in more)
        reason = f"update waiting: version {found.version} requests more than {known.version}: {requests}"
        return LockVerdict(found, known, more, reason)
    return LockVerdict(found, known)


def _is_covered(requested: LockedPermission, known: Iterable[LockedPermission]) -> bool:
    if requested in known:
        return True
    rule = _rule(requested)
    return rule is not None and any(covers(own, rule) for item in known if (own := _rule(item)) is not None)


def _rule(item: LockedPermission) -> Rule | None:
    """Returns the rule of a permission; `None` for a variable, and for a rule that no longer parses."""
    kind = next((own for own in KINDS if own == item.kind), None)
    try:
        return None if kind is None else parse_target(kind, item.rule)
    except RuleError:
        return None
