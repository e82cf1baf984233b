"""Reads and writes the lock file: the accepted version, content and permissions of each plugin, and its approvals.

Theory of operation: a reader parses the whole file, and a writer replaces it with `os.replace`, so that a reader never
sees a partial file. A broken file, or one that another user may write, is an error and never an empty file: otherwise
the next version found would be accepted as the first. Several hosts and commands, in one process or in many, may write
one file. Each holds a `filelock` on the file `….guard` beside it while it reads, changes and replaces the lock file.
The guard file stays: a process that waits for a deleted file and one that creates it anew would both hold the lock.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from nyx_stream.audit.file import sync_folder
from nyx_stream.errors import LockError
from nyx_stream.policy.approval import OptionalKind
from nyx_stream.policy.manifest_file import Identifier
from nyx_stream.regular_file import NotRegular, open_regular

MAX_BYTES = 16 * 2**20
"""Size above which a lock file is refused."""

_TIMEOUT = 5.0
"""Seconds to wait for another writer, which holds the lock for one read and one write."""

_POLL_INTERVAL = 0.01
"""Seconds between two attempts to take the lock."""

_Text = Annotated[str, StringConstraints(max_length=64 * 1024)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LockedApproval(_Model):
    """An approval that outlives its host."""

    kind: OptionalKind
    rule: _Text
    verdict: Literal["until", "always"]
    until: Annotated[float, Field(ge=0, lt=10**11, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if (self.verdict == "until") != (self.until is not None):
            raise ValueError("an approval has `until` if, and only if, its verdict is 'until'")
        return self


class LockedPermission(_Model):
    """A permission that the accepted version requests."""

    kind: Literal["connect", "request", "read", "write", "env"]
    rule: _Text


class LockedPlugin(_Model):
    """The accepted version of one plugin."""

    version: _Text
    content: Annotated[str, StringConstraints(pattern=r"^blake2b:[0-9a-f]{64}$")]
    permissions: list[LockedPermission]
    approvals: list[LockedApproval] = []


class _Document(_Model):
    nyx_lock: Literal[1]
    plugins: dict[Identifier, LockedPlugin] = Field(default={})


Plugins = dict[str, LockedPlugin]


class LockFile:
    """A lock file by its path. Every method blocks; several hosts and commands may use one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.next_path = f"{self.path}.new"
        """The next content is written here, then renamed. The name is fixed so that the guard can deny it: a plugin
        that has this file open has the lock file open after the rename."""
        self.guard_path = f"{self.path}.guard"
        """The file that writers lock."""
        self.paths = (self.path, self.next_path, self.guard_path)
        """The files that no plugin may open."""

    def read(self) -> Plugins:
        """Returns the recorded plugins; none if there is no file.

        Raises:
            LockError: the file is broken, or another user may write it.
            OSError: it can't be read.
        """
        try:
            file = open_regular(self.path, links=False)
        except FileNotFoundError:
            return {}
        except NotRegular as error:
            raise LockError(self.path, "not a regular file") from error
        with file:
            self._check_owner(os.fstat(file.fileno()))
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise LockError(self.path, f"larger than {MAX_BYTES} bytes")
        try:
            return dict(_Document.model_validate_json(data).plugins)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(str(part) for part in fault["loc"])
            where = f"{field}: " if field else ""
            raise LockError(self.path, f"broken: {where}{fault['msg']}") from None

    @contextmanager
    def changing(self) -> Iterator[Plugins]:
        """Yields the recorded plugins for changes in place, then writes the file if they changed.

        Only one writer at a time can be inside. If reading or writing raises, the file stays as it was.

        Raises:
            LockError: the file is broken, another user may write it, or another writer holds it for too long.
            OSError: it can't be read or written.
        """
        try:
            held = FileLock(self.guard_path, mode=0o600).acquire(timeout=_TIMEOUT, poll_interval=_POLL_INTERVAL)
        except Timeout:
            raise LockError(self.path, f"another process has kept it locked for {_TIMEOUT:g} s") from None
        with held:
            before = self.read()
            after = dict(before)
            yield after
            if after != before:
                self._write(after)

    def add_approvals(self, plugin: str, content: str, approvals: Sequence[LockedApproval]) -> None:
        """Adds approvals of a plugin to the recorded ones, which another host may have written.

        Records nothing if `content`, which they are for, isn't the accepted content. Raises as `changing`.
        """
        with self.changing() as plugins:
            known = plugins.get(plugin)
            if known is not None and known.content == content:
                replaced = {(item.kind, item.rule) for item in approvals}
                kept = [item for item in known.approvals if (item.kind, item.rule) not in replaced]
                plugins[plugin] = known.model_copy(update={"approvals": [*kept, *approvals]})

    def remove_approvals(self, plugin: str, kind: str | None, rule: str | None) -> list[LockedApproval]:
        """Removes approvals of a plugin, of one kind and rule or all; returns them. Raises as `changing`."""
        removed: list[LockedApproval] = []
        with self.changing() as plugins:
            known = plugins.get(plugin)
            if known is not None:
                removed = [item for item in known.approvals if kind in (None, item.kind) and rule in (None, item.rule)]
                kept = [item for item in known.approvals if item not in removed]
                plugins[plugin] = known.model_copy(update={"approvals": kept})
        return removed

    def _write(self, plugins: Plugins) -> None:
        content = _Document(nyx_lock=1, plugins=dict(sorted(plugins.items())))
        data = content.model_dump_json(indent=2).encode() + b"\n"
        with suppress(FileNotFoundError):  # left by a process that was killed while it wrote
            os.unlink(self.next_path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            with open(os.open(self.next_path, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.next_path, self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(self.next_path)
            raise
        sync_folder(self.path)

    def _check_owner(self, status: os.stat_result) -> None:
        if sys.platform == "win32":
            return
        if status.st_uid not in (os.getuid(), 0):
            raise LockError(self.path, "belongs to another user")
        if status.st_mode & 0o022:
            raise LockError(self.path, "other users may write it: if you trust its content, run chmod 600 on it")
