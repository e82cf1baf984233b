"""Reads a policy and puts it in force while a plugin runs: atomically, with an audit event for success and failure."""

import asyncio
import logging
import os
from typing import TypeAlias

from nyx_stream.capabilities.http.credentials import Keyring, Unresolved
from nyx_stream.errors import NyxError, PolicyError, Problem
from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.policy import SandboxPolicy

_log = logging.getLogger("nyx.host")

AnyPolicy: TypeAlias = SandboxPolicy | str | os.PathLike[str]
"""A policy, or the path of a policy file."""


async def read_policy(policy: AnyPolicy | None) -> tuple[SandboxPolicy | None, str | None]:
    """Returns a policy whose credentials resolve, and the absolute path of its file if it is read from one.

    Raises:
        PolicyError: the file is wrong, or credentials don't resolve; it has every fault.
        OSError: the file can't be read.
    """
    if policy is None:
        return None, None
    if isinstance(policy, SandboxPolicy):
        if policy.credentials:
            await asyncio.to_thread(_check_credentials, policy)
        return policy, None
    return await asyncio.to_thread(_read_file, os.fspath(policy))


async def update_policy(record: PluginRecord, policy: AnyPolicy, audit: AuditTrail) -> None:
    """Puts a policy in force, in every run of a running plugin; see `Handle.update_policy`.

    Raises:
        PolicyError, OSError: the policy can't be read; the old one stays in force.
        PluginError: the plugin doesn't run.
    """
    name = _name(policy)
    try:
        given, policy_file = await read_policy(policy)
        async with record.changing:
            record.require_running()
            if given is not None:
                record.apply_policy(given, policy_file)
    except Exception as error:
        audit.record(record.id, "update_policy", name, error, describe_error(error), "policy")
        raise
    audit.record(record.id, "update_policy", name, kind="policy")


async def apply_policy_file(
    record: PluginRecord, path: str, found: SandboxPolicy | Exception, reported: str | None, audit: AuditTrail
) -> str | None:
    """Puts in force what a watched policy file says. If it is wrong, reports that and keeps the old policy.

    Args:
        record: the plugin. If it doesn't run, the policy applies at its next start.
        path: its policy file.
        found: what the file says, or the error in it.
        reported: the error that was reported for the file last, which isn't reported twice.
        audit: the host's audit trail.

    Returns:
        The error in the file as text, or `None`.
    """
    if isinstance(found, Exception):
        reason = describe_error(found)
        if reason != reported:
            audit.record(record.id, "update_policy", path, found, reason, "policy")
            _log.error("plugin %s: the old policy stays in force: %s", record.id, reason)
        return reason
    async with record.changing:
        if record.unloaded or record.policy_file != path:
            return None
        is_new = found != record.policy
        record.apply_policy(found, path)  # an equal policy, too: its rules may be on other lines
    if is_new:
        audit.record(record.id, "update_policy", path, reason="its file has changed", kind="policy")
        _log.info("plugin %s: the policy file has changed and is in force", record.id)
    return None


def describe_error(error: BaseException) -> str:
    """Returns on one line why a policy or a plugin's files were refused. Only for errors that the host raised."""
    if isinstance(error, PolicyError):
        return "; ".join(str(problem).partition("\n")[0] for problem in error.problems)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    return str(error) if isinstance(error, NyxError) else type(error).__name__


def _name(policy: AnyPolicy) -> str:
    return "a new policy" if isinstance(policy, SandboxPolicy) else os.path.abspath(os.fspath(policy))


def _read_file(path: str) -> tuple[SandboxPolicy, str]:
    policy = SandboxPolicy.from_toml(path)
    _check_credentials(policy)
    return policy, os.path.abspath(path)


def _check_credentials(policy: SandboxPolicy) -> None:
    keyring = Keyring()
    problems: list[Problem] = []
    for item in policy.credentials:
        try:
            keyring.secret(item)
        except Unresolved as error:
            where, line = (item.source.where, item.source.line) if item.source else ("bind_credential", None)
            problems.append(Problem(str(error), where=where, line=line))
    if problems:
        raise PolicyError(problems)
