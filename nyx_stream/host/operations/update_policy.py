"""Putting another policy in force while a plugin runs: all of it or nothing, and recorded either way."""

import logging
import os
from collections.abc import Mapping

from nyx_stream.host.observability.audit_trail import AuditTrail
from nyx_stream.host.operations.read_policy import AnyPolicy, read_policy, told
from nyx_stream.host.runtime.plugin_record import PluginRecord
from nyx_stream.host.runtime.plugin_run import PluginRun
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant

_log = logging.getLogger("nyx.host")


async def update_policy(entry: PluginRecord, policy: AnyPolicy, trail: AuditTrail) -> None:
    """Puts a policy in force, in every life of a running plugin; see `Handle.update_policy`.

    Raises:
        PolicyError, OSError: the policy cannot be had; the old one stays in force.
        PluginError: the plugin does not run.
    """
    name = _name(policy)
    try:
        given, policy_file = await read_policy(policy)
        async with entry.changing:
            entry.must_run()
            if given is not None:
                put_in_force(entry, given, policy_file)
    except Exception as error:
        trail.record(entry.id, "update_policy", name, error, told(error), "policy")
        raise
    trail.record(entry.id, "update_policy", name, kind="policy")


async def take_file(
    entry: PluginRecord, path: str, found: SandboxPolicy | Exception, told_before: str | None, trail: AuditTrail
) -> str | None:
    """Puts in force what the policy file of a plugin says now; if it is wrong, the old policy stays, and it is told.

    Args:
        entry: the plugin. If it does not run, the policy waits for its next start.
        path: its policy file.
        found: what the file says, or what is wrong with it.
        told_before: what was wrong with it the last time: it is not told twice.
        trail: where it is recorded.

    Returns:
        What is wrong with it, or `None`.
    """
    if isinstance(found, Exception):
        why = told(found)
        if why != told_before:
            trail.record(entry.id, "update_policy", path, found, why, "policy")
            _log.error("plugin %s: the old policy stays in force: %s", entry.id, why)
        return why
    async with entry.changing:
        if entry.unloaded or entry.policy_file != path:
            return None
        new = found != entry.policy
        put_in_force(entry, found, path)  # also if it says the same: its rules may stand on other lines
    if new:
        trail.record(entry.id, "update_policy", path, reason="its file has changed", kind="policy")
        _log.info("plugin %s: the policy file has changed and is in force", entry.id)
    return None


def put_in_force(entry: PluginRecord, policy: SandboxPolicy, policy_file: str | None) -> None:
    """Swaps the policy of an entry and of all its lives; what starts later starts under it too."""
    _govern(entry, dict.fromkeys(entry.lives, policy))
    entry.policy, entry.policy_file = policy, policy_file


def renew(entry: PluginRecord) -> None:
    """Puts what is approved now in force in all lives of an entry, each under the policy that it has."""
    _govern(entry, {life: life.policy for life in entry.lives})


def _govern(entry: PluginRecord, policies: Mapping[PluginRun, SandboxPolicy]) -> None:
    changes = [(life, policy, entry.in_force(life.source, policy)) for life, policy in policies.items()]
    grants = [Grant.of(life.source.manifest, whole, entry.places(life.source)) for life, _, whole in changes]
    for (life, policy, whole), grant in zip(changes, grants, strict=True):
        life.govern(policy, whole, grant)


def _name(policy: AnyPolicy) -> str:
    return "a new policy" if isinstance(policy, SandboxPolicy) else os.path.abspath(os.fspath(policy))
