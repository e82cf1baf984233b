"""Putting another policy in force while a plugin runs: all of it or nothing, and recorded either way."""

import os

from nyx_stream.host.entry import Entry
from nyx_stream.host.policies import AnyPolicy, read_policy, told
from nyx_stream.host.trail import Trail
from nyx_stream.policy import SandboxPolicy
from nyx_stream.policy.grant import Grant


async def update_policy(entry: Entry, policy: AnyPolicy, trail: Trail) -> None:
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


def put_in_force(entry: Entry, policy: SandboxPolicy, policy_file: str | None) -> None:
    """Swaps the policy of an entry and of all its lives; what starts later starts under it too."""
    grants = [(life, Grant.of(life.source.manifest, policy, entry.places(life.source))) for life in entry.lives]
    for life, grant in grants:
        life.govern(policy, grant)
    entry.policy, entry.policy_file = policy, policy_file


def _name(policy: AnyPolicy) -> str:
    return "a new policy" if isinstance(policy, SandboxPolicy) else os.path.abspath(os.fspath(policy))
