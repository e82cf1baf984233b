"""Decides whether a plugin's files may run, by comparison with the lock file, and records accepted versions.

The first version seen is accepted. The same version must have the same content. Another version runs if it requests no
more than the accepted one; otherwise it waits until the operator accepts it. A version is recorded once it runs, so
that one that doesn't start leaves the record of its predecessor. The functions block; `LockRecorder` calls them in
threads for a running host.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from nyx_stream.errors import ContentChanged, PluginLoadError
from nyx_stream.host.discovery import find
from nyx_stream.host.lockfile.content_hash import read_content
from nyx_stream.host.lockfile.file import LockedApproval, LockedPermission, LockedPlugin, LockFile
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import PathRule, Places, SandboxPolicy
from nyx_stream.policy.approval import KINDS, parse_target
from nyx_stream.policy.coverage import covers, overlaps
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import Rule, RuleError, Source
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
    """Records the version on disk, without regard to its permissions. Approvals for another content are dropped.

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


def describe(manifest: Manifest, content: str) -> LockedPlugin:
    """Returns the record of a version, without approvals."""
    permissions = (
        *(LockedPermission(kind="connect", rule=rule.text) for rule in manifest.connect),
        *(LockedPermission(kind="request", rule=rule.text) for rule in manifest.request),
        *(LockedPermission(kind="read" if rule.mode == "r" else "write", rule=rule.text) for rule in manifest.paths),
        *(LockedPermission(kind="env", rule=name) for name in manifest.env),
    )
    return LockedPlugin(version=manifest.version, content=content, permissions=list(dict.fromkeys(permissions)))


class LockRecorder:
    """Runs the operations on a host's lock file in threads, one write at a time.

    Every method that writes approvals asks for them after it has taken `_writing`. Otherwise a write that was queued
    before a removal would bring the removed approval back.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = LockFile(path)
        self._writing = asyncio.Lock()

    async def verify(self, source: PluginSource) -> tuple[PluginSource, LockVerdict]:
        """Reads a plugin again; returns its source with its content, and whether it may run.

        Raises:
            LockError: the lock file is broken.
            ManifestError, PluginLoadError: the plugin can't be read.
        """
        try:
            return await asyncio.to_thread(_read_and_verify, self._file, source)
        except OSError as error:
            raise PluginLoadError(source.manifest.id, f"it can't be compared with the lock file: {error}") from error

    async def record(
        self,
        source: PluginSource,
        content: str,
        approvals: Callable[[], Sequence[LockedApproval]],
        is_running: Callable[[], bool],
    ) -> LockVerdict:
        """Records a version that was verified and now runs. See `verification.record`.

        Raises:
            LockError, PluginLoadError: it can't be recorded.
        """
        plugin, found = source.manifest.id, describe(source.manifest, content)
        async with self._writing:
            try:
                return await asyncio.to_thread(record, self._file, plugin, found, approvals(), is_running)
            except OSError as error:
                raise PluginLoadError(plugin, f"it can't be recorded in the lock file: {error}") from error

    async def accept(self, source: PluginSource, content: str) -> None:
        """Accepts the version on disk if it has this content. Raises as `verification.accept` and `find`."""
        found = await asyncio.to_thread(find, source.locator)
        await asyncio.to_thread(accept, self._file, found, content)

    async def add(self, plugin: str, content: str, approvals: Callable[[], Sequence[LockedApproval]]) -> None:
        """Records approvals of a plugin. Raises `LockError` or `OSError` if it can't."""
        async with self._writing:
            if current := approvals():
                await asyncio.to_thread(self._file.add_approvals, plugin, content, current)

    async def remove(self, plugin: str, kind: str | None, rule: str | None) -> list[LockedApproval]:
        """Removes approvals of a plugin; returns them. Raises `LockError` or `OSError` if it can't."""
        async with self._writing:
            return await asyncio.to_thread(self._file.remove_approvals, plugin, kind, rule)

    def deny_lock_file(self, policy: SandboxPolicy, places: Places) -> SandboxPolicy:
        """Returns the policy with the lock file denied, if it is in a folder that the policy grants.

        A plugin that could write the lock file could approve its own updates and permissions. Elsewhere no rule is
        added, because a deny rule costs every operation on files a second check.
        """
        source = Source("the lock file")
        denied = tuple(
            PathRule(name, "rw", source)
            for path in self._file.paths
            for name in dict.fromkeys((path, os.path.realpath(path)))
        )
        granted = [rule.prefix for rule in policy.merged().bind(places).paths]
        names = {name for prefix in granted for name in (prefix, os.path.realpath(prefix))}
        if not any(overlaps(PathRule(name), rule) for name in names for rule in denied):
            return policy
        return replace(policy, denied_paths=(*policy.denied_paths, *denied))


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


def _read_and_verify(file: LockFile, source: PluginSource) -> tuple[PluginSource, LockVerdict]:
    # Find it again: new code must not run under an old manifest.
    found = find(source.locator)
    if found.manifest.id != source.manifest.id:
        raise PluginLoadError(source.manifest.id, f"its manifest now has the id {found.manifest.id!r}")
    content = read_content(found)
    return found.with_content(content.hash, content.digests), verify(file, found.manifest, content.hash)
