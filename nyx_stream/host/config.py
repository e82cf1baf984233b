"""The host file `nyx.toml`: which plugins, from where, at which level, under which policy. Starts nothing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from nyx_stream.audit.key import read_key
from nyx_stream.audit.log import SMALLEST_SEGMENT, AuditOptions, Fsync, WhenFull
from nyx_stream.errors import ManifestError, PluginError, PolicyError, Problem, WatchUnavailable
from nyx_stream.host.discovery import find
from nyx_stream.host.observability.status import OnFail
from nyx_stream.host.operations.watch_policy import require_watchfiles
from nyx_stream.isolation.backend import Level, PluginSource
from nyx_stream.isolation.process.placement import placement
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.config_file import ConfigFile, Table
from nyx_stream.policy.units import parse_duration, parse_size

_Text = Annotated[str, StringConstraints(min_length=1)]


class PluginTable(Table):
    """One plugin."""

    source: _Text = Field(alias="from", description="A plugin folder, or the id of an installed plugin.")
    isolation: Level = "inline"
    policy: _Text | None = Field(default=None, description="A policy file. Without one, nothing is granted.")
    on_fail: OnFail = "disable"
    watch: bool = Field(default=False, description="Whether what is written to the policy file is put in force.")


class AuditTable(Table):
    """The audit log, and how it is kept: `AuditLog.open` says what each value does. A text is short for its `file`."""

    file: _Text | None = Field(default=None, description="File of the audit log.")
    logging: bool = Field(default=False, description="Whether events go to the logger nyx.audit too.")
    fsync: Fsync = "interval"
    sync_interval: str | float = Field(default="1s", description="For fsync = interval: how often.")
    segment: str | int = Field(default="64MiB", description="Size at which the file is sealed and another begun.")
    when_full: WhenFull = "drop-and-count"
    key_file: _Text | None = Field(default=None, description="File with the key of the chain, 16 to 64 bytes.")
    queries: Literal["redact", "keep"] = Field(default="redact", description="Query strings of URLs in targets.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.file is None and not self.logging:
            raise ValueError("names neither a file nor logging")
        return self


class HostFile(Table):
    """A Nyx host: relative paths are below the folder of this file."""

    audit: AuditTable | None = Field(default=None, description="The audit log: its file, or a table.")
    data_dir: _Text | None = Field(default=None, description="Directory below which each plugin has its own.")
    tripwire: bool = True
    lock: _Text | None = Field(
        default=None, description="Lock file: which version and content of each plugin runs, and what was approved."
    )
    worker_cpus: list[int] | None = Field(
        default=None, description="Numbers of the processors that workers of level process run on; any by default."
    )
    plugins: list[PluginTable] = Field(default=[])


@dataclass(frozen=True, slots=True)
class PluginOrder:
    """A plugin that is to be loaded."""

    source: PluginSource
    policy: SandboxPolicy
    isolation: Level
    on_fail: OnFail
    policy_file: str | None = None
    watch: bool = False


@dataclass(frozen=True, slots=True)
class HostConfig:
    """A host file as values; its paths are absolute."""

    audit: str | None
    logging: bool
    audit_options: AuditOptions
    data_dir: str | None
    tripwire: bool
    lock: str | None
    worker_cpus: frozenset[int] | None
    plugins: Sequence[PluginOrder]


def read_config(path: str | os.PathLike[str]) -> HostConfig:
    """Reads a host file, the policies it names and the manifests of its plugins.

    Raises:
        PolicyError: with every fault of all of them, each with file and line.
        OSError: the host file cannot be read.
    """
    text = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(text))
    file = ConfigFile(text, HostFile)
    below: list[Problem] = []
    orders: list[PluginOrder] = []
    for index, table in enumerate(file.values.plugins):
        if table.watch:
            _check_watch(file, index, table)
        source = _source(file, index, table, folder, below)
        policy = _policy(file, index, table, folder, below)
        if source is None or policy is None:
            continue
        if any(order.source.manifest.id == source.manifest.id for order in orders):
            file.fault(("plugins", index, "from"), f"a second plugin with the id {source.manifest.id}")
        policy_file = os.path.join(folder, table.policy) if table.policy is not None else None
        orders.append(PluginOrder(source, policy, table.isolation, table.on_fail, policy_file, table.watch))
    values = file.values
    options = _audit_options(file, values.audit, folder) if values.audit is not None else AuditOptions()
    cpus = None
    try:
        cpus = placement(values.worker_cpus)
    except ValueError as error:
        file.fault(("worker_cpus",), str(error))
    _finish(file, below)
    log = values.audit.file if values.audit is not None else None
    return HostConfig(
        audit=os.path.join(folder, log) if log is not None else None,
        logging=values.audit is not None and values.audit.logging,
        audit_options=options,
        data_dir=os.path.join(folder, values.data_dir) if values.data_dir is not None else None,
        tripwire=values.tripwire,
        lock=os.path.join(folder, values.lock) if values.lock is not None else None,
        worker_cpus=cpus,
        plugins=tuple(orders),
    )


def _audit_options(file: ConfigFile[HostFile], table: AuditTable, folder: str) -> AuditOptions:
    options = AuditOptions(fsync=table.fsync, when_full=table.when_full, keep_queries=table.queries == "keep")
    try:
        options["sync_interval"] = parse_duration(table.sync_interval)
    except ValueError as error:
        file.fault(("audit", "sync_interval"), str(error))
    try:
        options["segment_bytes"] = size = parse_size(table.segment)
        if size < SMALLEST_SEGMENT:
            file.fault(("audit", "segment"), f"a segment has {SMALLEST_SEGMENT} bytes or more")
    except ValueError as error:
        file.fault(("audit", "segment"), str(error))
    if table.key_file is not None:
        try:
            options["key"] = read_key(os.path.join(folder, table.key_file))
        except OSError as error:
            file.fault(("audit", "key_file"), f"{table.key_file} cannot be read: {error.strerror}")
        except ValueError as error:
            file.fault(("audit", "key_file"), str(error))
    return options


def _check_watch(file: ConfigFile[HostFile], index: int, table: PluginTable) -> None:
    if table.policy is None:
        file.fault(("plugins", index, "watch"), "there is no policy file to watch")
    try:
        require_watchfiles()
    except WatchUnavailable as error:
        file.fault(("plugins", index, "watch"), str(error))


def _source(
    file: ConfigFile[HostFile], index: int, table: PluginTable, folder: str, below: list[Problem]
) -> PluginSource | None:
    beside = os.path.join(folder, table.source)
    try:
        return find(beside if os.path.isdir(beside) else table.source)
    except ManifestError as error:
        below.extend(error.problems)
    except PluginError as error:
        file.fault(("plugins", index, "from"), error.message)
    return None


def _policy(
    file: ConfigFile[HostFile], index: int, table: PluginTable, folder: str, below: list[Problem]
) -> SandboxPolicy | None:
    if table.policy is None:
        return SandboxPolicy.locked_down()
    try:
        return SandboxPolicy.from_toml(os.path.join(folder, table.policy))
    except PolicyError as error:
        below.extend(error.problems)
    except OSError as error:
        file.fault(("plugins", index, "policy"), f"{table.policy} cannot be read: {error.strerror}")
    return None


def _finish(file: ConfigFile[HostFile], below: list[Problem]) -> None:
    try:
        file.finish()
    except PolicyError as error:
        raise PolicyError([*error.problems, *below]) from None
    if below:
        raise PolicyError(below)
