"""What a host with a lock file does before a plugin starts, when it runs, and when something was approved.

A host without one has no `LockRecorder`; see `admission` for what is compared, and `lock_file` for the file.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace

from nyx_stream.errors import ContentChanged, PluginLoadError, PluginStateError, UpdateWaiting
from nyx_stream.host.approvals.store import ApprovalStore, Standing
from nyx_stream.host.discovery import find
from nyx_stream.host.lockfile.content_hash import read_content
from nyx_stream.host.lockfile.file import LockedApproval, LockFile
from nyx_stream.host.lockfile.verification import Verdict, accept, admit, described, forget, keep, record
from nyx_stream.host.observability.status import Waiting
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.isolation.backend import PluginSource
from nyx_stream.policy import PathRule, Places, SandboxPolicy
from nyx_stream.policy.coverage import overlaps
from nyx_stream.policy.rules import Source


class LockRecorder:
    """The lock file of one host at work."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = LockFile(path)
        self._turn = asyncio.Lock()
        """Held while approvals are written: what was taken back must not come again by a write that began before."""

    async def admit(self, entry: PluginRecord, source: PluginSource) -> PluginSource:
        """Returns what lies there now, with its content: it may run. Its approvals are at hand.

        Raises:
            ContentChanged, UpdateWaiting: it may not run; the entry says what waits.
            LockError: the lock file is broken.
            ManifestError, PluginLoadError: the plugin cannot be read.
        """
        forgotten = entry.approvals.forgotten
        try:
            source, verdict = await asyncio.to_thread(_look, self._file, source)
        except OSError as error:
            raise PluginLoadError(entry.id, f"it cannot be compared with the lock file: {error}") from error
        found = verdict.found
        _must_not_wait(entry, verdict)
        entry.waiting = None
        entry.approvals.retain((entry.source.content, found.content))
        if entry.approvals.forgotten == forgotten:  # otherwise what was read may have been taken back meanwhile
            entry.approvals.restore(source, found.approvals)
        return source

    async def record(self, entry: PluginRecord, source: PluginSource, runs: Callable[[], bool]) -> None:
        """Records what was admitted, now that it runs.

        Raises:
            ContentChanged, UpdateWaiting: another host has recorded something else meanwhile: it may not run.
            LockError, PluginLoadError: it cannot be recorded.
        """
        if source.content is None:
            return
        found = described(source.manifest, source.content)
        async with self._turn:
            standing = entry.approvals.of(source.content)
            try:
                verdict = await asyncio.to_thread(record, self._file, source.manifest.id, found, standing, runs)
            except OSError as error:
                raise PluginLoadError(entry.id, f"it cannot be recorded in the lock file: {error}") from error
        _must_not_wait(entry, verdict)

    async def approve(self, entry: PluginRecord) -> str:
        """Accepts what was refused, and nothing else; returns its version. See `PluginHost.approve`."""
        waiting = entry.waiting
        if waiting is None:
            raise PluginStateError(entry.id, "nothing of it waits to be accepted")
        found = await asyncio.to_thread(find, _place(entry.source))
        await asyncio.to_thread(accept, self._file, found, waiting.content)
        entry.waiting = None
        return waiting.version

    def shielded(self, policy: SandboxPolicy, places: Places) -> SandboxPolicy:
        """Returns the policy without the lock file, where it lies in a folder that the policy grants.

        A plugin that could write it would approve of itself. Elsewhere no rule is added, for one costs every operation
        on files a second look.
        """
        source = Source("the lock file")
        own = tuple(
            PathRule(name, "rw", source)
            for path in self._file.paths
            for name in dict.fromkeys((path, os.path.realpath(path)))
        )
        granted = [rule.prefix for rule in policy.merged().bind(places).paths]
        names = {name for prefix in granted for name in (prefix, os.path.realpath(prefix))}
        if not any(overlaps(PathRule(name), rule) for name in names for rule in own):
            return policy
        return replace(policy, denied_paths=(*policy.denied_paths, *own))

    async def keep(self, source: PluginSource, approvals: ApprovalStore, item: Standing) -> None:
        """Records an approval of a plugin, if it still stands. Raises `LockError` or `OSError` if it cannot."""
        if source.content is not None:
            async with self._turn:
                if item in approvals.of(source.content):
                    await asyncio.to_thread(keep, self._file, source.manifest.id, source.content, [item])

    async def forget(self, plugin: str, kind: str | None, rule: str | None) -> list[LockedApproval]:
        """Takes back what is recorded of a plugin; returns that. Raises `LockError` or `OSError` if it cannot."""
        async with self._turn:
            return await asyncio.to_thread(forget, self._file, plugin, kind, rule)


def _look(file: LockFile, source: PluginSource) -> tuple[PluginSource, Verdict]:
    # Read again: code that is new must not run under a manifest that is old.
    found = find(_place(source))
    if found.manifest.id != source.manifest.id:
        raise PluginLoadError(source.manifest.id, f"its manifest now has the id {found.manifest.id!r}")
    content = read_content(found)
    return found.with_content(content.number, content.digests), admit(file, found.manifest, content.number)


def _must_not_wait(entry: PluginRecord, verdict: Verdict) -> None:
    if verdict.refused is not None:
        entry.waiting = Waiting(verdict.found.version, verdict.found.content, verdict.refused)
        kind = ContentChanged if verdict.changed else UpdateWaiting
        raise kind(entry.id, f"{verdict.refused}; look at it, and accept it with host.approve or nyx approve")


def _place(source: PluginSource) -> str:
    return source.folder if source.distribution is None else source.manifest.id
