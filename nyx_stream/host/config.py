"""Reads the host file `nyx.toml`: the plugins of a host, their isolation levels and policies, and its audit log."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, model_validator

from nyx_stream.audit.chain import read_key
from nyx_stream.audit.log import MIN_SEGMENT_BYTES, AuditOptions, Fsync, WhenFull
from nyx_stream.errors import ManifestError, PluginError, PolicyError, Problem, WatchUnavailable
from nyx_stream.host.discovery import find
from nyx_stream.host.observability.metrics import OnFail
from nyx_stream.host.operations.watch_policy import require_watchfiles
from nyx_stream.isolation.backend import Level, PluginSource
from nyx_stream.isolation.process.affinity import parse_cpus
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.limits import parse_duration, parse_size

_Text = Annotated[str, StringConstraints(min_length=1)]
_Value = TypeVar("_Value")
_Parsed = TypeVar("_Parsed")


class PluginTable(Table):
    """One plugin."""

    source: _Text = Field(alias="from", description="A plugin folder, or the id of an installed plugin.")
    isolation: Level = "inline"
    policy: _Text | None = Field(default=None, description="A policy file. Without one, nothing is granted.")
    on_fail: OnFail = "disable"
    watch: bool = Field(default=False, description="Whether changes of the policy file are put in force.")


class AuditTable(Table):
    """The audit log and its options, as for `AuditLog.open`. A text is short for its `file`."""

    file: _Text | None = Field(default=None, description="File of the audit log.")
    logging: bool = Field(default=False, description="Whether events go to the logger nyx.audit too.")
    fsync: Fsync = "interval"
    sync_interval: str | float = Field(default="1s", description="For fsync = interval: how often.")
    segment: str | int = Field(default="64MiB", description="Size at which the file is sealed and the next one begins.")
    when_full: WhenFull = "drop-and-count"
    key_file: _Text | None = Field(default=None, description="File with the key of the chain, 16 to 64 bytes.")
    queries: Literal["redact", "keep"] = Field(default="redact", description="Query strings of URLs in targets.")

    @model_validator(mode="before")
    @classmethod
    def _expand_text(cls, value: object) -> object:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.file is None and not self.logging:
            raise ValueError("needs a file, or logging = true")
        return self


class HostFile(Table):
    """A host file. Relative paths are relative to its folder."""

    audit: AuditTable | None = Field(default=None, description="The audit log: its file, or a table.")
    data_dir: _Text | None = Field(default=None, description="Directory of the plugins' private directories.")
    tripwire: bool = True
    lock: _Text | None = Field(
        default=None, description="Lock file: the version and content of each plugin, and its approvals."
    )
    worker_cpus: list[int] | None = Field(
        default=None, description="Numbers of the processors on which workers of level process run; any by default."
    )
    plugins: list[PluginTable] = Field(default=[])


@dataclass(frozen=True, slots=True)
class PluginOrder:
    """A plugin to load."""

    source: PluginSource
    policy: SandboxPolicy
    isolation: Level
    on_fail: OnFail
    policy_file: str | None = None
    watch: bool = False


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The values of a host file, with absolute paths."""

    audit: str | None
    logging: bool
    audit_options: AuditOptions
    data_dir: str | None
    tripwire: bool
    lock: str | None
    worker_cpus: frozenset[int] | None
    plugins: Sequence[PluginOrder]


def read_config(path: str | os.PathLike[str]) -> HostConfig:
    """Reads a host file, the policies that it names, and the manifests of its plugins.

    Raises:
        PolicyError: it has every fault of all these files, each with file and line.
        OSError: the host file can't be read.
    """
    text = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(text))
    file = ConfigFile(text, HostFile)
    values = file.values
    further: list[Problem] = []
    orders: list[PluginOrder] = []
    for index, table in enumerate(values.plugins):
        order = _read_order(file, index, table, folder, further)
        if order is None:
            continue
        name = order.source.manifest.id
        if any(other.source.manifest.id == name for other in orders):
            file.fault(("plugins", index, "from"), f"a second plugin with the id {name}")
        orders.append(order)
    options = _audit_options(file, values.audit, folder) if values.audit is not None else AuditOptions()
    cpus = _parse(file, ("worker_cpus",), parse_cpus, values.worker_cpus)
    try:
        file.finish()
    except PolicyError as error:
        raise PolicyError([*error.problems, *further]) from None
    if further:
        raise PolicyError(further)
    return HostConfig(
        audit=_below(folder, values.audit.file if values.audit is not None else None),
        logging=values.audit is not None and values.audit.logging,
        audit_options=options,
        data_dir=_below(folder, values.data_dir),
        tripwire=values.tripwire,
        lock=_below(folder, values.lock),
        worker_cpus=cpus,
        plugins=tuple(orders),
    )


def _read_order(
    file: ConfigFile[HostFile], index: int, table: PluginTable, folder: str, further: list[Problem]
) -> PluginOrder | None:
    """Returns one plugin of the file; `None` after recording what is wrong with it."""
    if table.watch:
        if table.policy is None:
            file.fault(("plugins", index, "watch"), "needs a policy file to watch")
        try:
            require_watchfiles()
        except WatchUnavailable as error:
            file.fault(("plugins", index, "watch"), str(error))
    source, policy = None, None
    beside = os.path.join(folder, table.source)
    try:
        source = find(beside if os.path.isdir(beside) else table.source)
    except ManifestError as error:
        further.extend(error.problems)
    except PluginError as error:
        file.fault(("plugins", index, "from"), error.message)
    policy_file = _below(folder, table.policy)
    try:
        policy = SandboxPolicy.locked_down() if policy_file is None else SandboxPolicy.from_toml(policy_file)
    except PolicyError as error:
        further.extend(error.problems)
    except OSError as error:
        file.fault(("plugins", index, "policy"), f"{table.policy} can't be read: {error.strerror}")
    if source is None or policy is None:
        return None
    return PluginOrder(source, policy, table.isolation, table.on_fail, policy_file, table.watch)


def _audit_options(file: ConfigFile[HostFile], table: AuditTable, folder: str) -> AuditOptions:
    options = AuditOptions(fsync=table.fsync, when_full=table.when_full, keep_queries=table.queries == "keep")
    if (interval := _parse(file, ("audit", "sync_interval"), parse_duration, table.sync_interval)) is not None:
        options["sync_interval"] = interval
    if (size := _parse(file, ("audit", "segment"), parse_size, table.segment)) is not None:
        options["segment_bytes"] = size
        if size < MIN_SEGMENT_BYTES:
            file.fault(("audit", "segment"), f"a segment has at least {MIN_SEGMENT_BYTES} bytes")
    if table.key_file is not None:
        try:
            key = _parse(file, ("audit", "key_file"), read_key, os.path.join(folder, table.key_file))
            if key is not None:
                options["key"] = key
        except OSError as error:
            file.fault(("audit", "key_file"), f"{table.key_file} can't be read: {error.strerror}")
    return options


def _parse(
    file: ConfigFile[HostFile], where: tuple[str | int, ...], parse: Callable[[_Value], _Parsed], value: _Value
) -> _Parsed | None:
    """Returns `parse(value)`; `None` after recording its `ValueError`."""
    try:
        return parse(value)
    except ValueError as error:
        file.fault(where, str(error))
        return None


def _below(folder: str, path: str | None) -> str | None:
    return None if path is None else os.path.join(folder, path)
