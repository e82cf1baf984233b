"""The lock file of a host: which version and content of each plugin was accepted, what it wants, and what was approved.

Read whole, checked whole, and replaced in one step. A file that cannot be trusted to be this host's is an error, never
an empty one. Knows no plugin's code and asks nobody.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from nyx_stream.audit.file import sync_folder
from nyx_stream.errors import LockError
from nyx_stream.host.lockfile.writer_lock import guard_of, sole_writer
from nyx_stream.policy.approval import OptionalKind
from nyx_stream.policy.manifest_file import Identifier
from nyx_stream.regular_file import NotRegular, open_regular

MAX_FILE_SIZE = 16 * 2**20
"""Bytes of a lock file that are read; a larger one is refused."""

_Text = Annotated[str, StringConstraints(max_length=64 * 1024)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LockedApproval(_Model):
    """An answer that outlives its host."""

    kind: OptionalKind
    rule: _Text
    verdict: Literal["until", "always"]
    until: Annotated[float, Field(ge=0, lt=10**11, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _ends_if_it_says_so(self) -> Self:
        if (self.verdict == "until") != (self.until is not None):
            raise ValueError("an approval has an end if it is until then, and only then")
        return self


class LockedPermission(_Model):
    """Something that the accepted version asks for."""

    kind: Literal["connect", "request", "read", "write", "env"]
    rule: _Text


class LockedPlugin(_Model):
    """What was accepted of one plugin."""

    version: _Text
    content: Annotated[str, StringConstraints(pattern=r"^blake2b:[0-9a-f]{64}$")]
    permissions: list[LockedPermission]
    approvals: list[LockedApproval] = []


class _Content(_Model):
    nyx_lock: Literal[1]
    plugins: dict[Identifier, LockedPlugin] = Field(default={})


Plugins = dict[str, LockedPlugin]


class LockFile:
    """A lock file by its path. Every method blocks; several hosts and commands may use one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.beside = f"{self.path}.new"
        """Where the next content is written, before it takes the place of the file. Always the same name, so that it
        can be denied: whoever has it open has the lock file open a moment later."""
        self.paths = (self.path, self.beside, guard_of(self.path))
        """What no plugin may have: it, that, and what is locked where a folder cannot be."""

    def read(self) -> Plugins:
        """Returns what is recorded; nothing, if there is no file.

        Raises:
            LockError: the file is broken, or others than its owner may write it.
            OSError: it cannot be read.
        """
        try:
            file = open_regular(self.path, links=False)
        except FileNotFoundError:
            return {}
        except NotRegular as error:
            raise LockError(self.path, "is no regular file") from error
        with file:
            self._must_be_ours(os.fstat(file.fileno()))
            data = file.read(MAX_FILE_SIZE + 1)
        if len(data) > MAX_FILE_SIZE:
            raise LockError(self.path, f"larger than {MAX_FILE_SIZE} bytes")
        try:
            return dict(_Content.model_validate_json(data).plugins)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise LockError(
                self.path, f"broken: {place}: {fault['msg']}" if place else f"broken: {fault['msg']}"
            ) from None

    @contextmanager
    def changing(self) -> Iterator[Plugins]:
        """Gives what is recorded, to be changed in place; at the end it is written, if it was changed.

        Nobody else changes the file meanwhile. Raises as `read`, and what writing raises; the file is then as before.
        """
        with sole_writer(self.path):
            before = self.read()
            after = dict(before)
            yield after
            if after != before:
                self._write(after)

    def _write(self, plugins: Plugins) -> None:
        content = _Content(nyx_lock=1, plugins=dict(sorted(plugins.items())))
        data = content.model_dump_json(indent=2).encode() + b"\n"
        with suppress(FileNotFoundError):  # left by a process that was killed here
            os.unlink(self.beside)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            with open(os.open(self.beside, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.beside, self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(self.beside)
            raise
        sync_folder(self.path)

    def _must_be_ours(self, status: os.stat_result) -> None:
        if sys.platform == "win32":
            return
        if status.st_uid not in (os.getuid(), 0):
            raise LockError(self.path, "belongs to another user")
        if status.st_mode & 0o022:
            raise LockError(self.path, "others may write it: chmod 600 it if you trust what it says")
