"""The lock file of one running host: verifies a plugin before it starts, and records versions and approvals."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from nyx_stream.errors import PluginLoadError
from nyx_stream.host.discovery import find
from nyx_stream.host.lockfile.content_hash import read_content
from nyx_stream.host.lockfile.file import LockedApproval, LockFile
from nyx_stream.host.lockfile.verification import (
    LockVerdict,
    accept,
    add_approvals,
    describe,
    record,
    remove_approvals,
    verify,
)
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import PathRule, Places, SandboxPolicy
from nyx_stream.policy.coverage import overlaps
from nyx_stream.policy.rule import Source

Approvals = Callable[[], Sequence[LockedApproval]]
"""Returns the approvals of a plugin's content that hold now."""


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
        self, source: PluginSource, content: str, approvals: Approvals, is_running: Callable[[], bool]
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

    async def add(self, plugin: str, content: str, approvals: Approvals) -> None:
        """Records approvals of a plugin. Raises `LockError` or `OSError` if it can't."""
        async with self._writing:
            if current := approvals():
                await asyncio.to_thread(add_approvals, self._file, plugin, content, current)

    async def remove(self, plugin: str, kind: str | None, rule: str | None) -> list[LockedApproval]:
        """Removes approvals of a plugin; returns them. Raises `LockError` or `OSError` if it can't."""
        async with self._writing:
            return await asyncio.to_thread(remove_approvals, self._file, plugin, kind, rule)

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


def _read_and_verify(file: LockFile, source: PluginSource) -> tuple[PluginSource, LockVerdict]:
    # Find it again: new code must not run under an old manifest.
    found = find(source.locator)
    if found.manifest.id != source.manifest.id:
        raise PluginLoadError(source.manifest.id, f"its manifest now has the id {found.manifest.id!r}")
    content = read_content(found)
    return found.with_content(content.hash, content.digests), verify(file, found.manifest, content.hash)
