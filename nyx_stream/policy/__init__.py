"""Policies, manifests and limits: rules as frozen values, parsed from text once."""

from nyx_stream.policy.approval import Approval, OptionalPermission
from nyx_stream.policy.credential import Credential
from nyx_stream.policy.grant import Grant, GrantRow
from nyx_stream.policy.limits import LeaseTerms, Limits
from nyx_stream.policy.manifest import Manifest
from nyx_stream.policy.rules import NO_PLACES, ConnectRule, Mode, PathRule, Places, RequestRule, RuleError, Source
from nyx_stream.policy.sandbox_policy import SandboxPolicy

__all__ = [
    "NO_PLACES",
    "Approval",
    "ConnectRule",
    "Credential",
    "Grant",
    "GrantRow",
    "LeaseTerms",
    "Limits",
    "Manifest",
    "Mode",
    "OptionalPermission",
    "PathRule",
    "Places",
    "RequestRule",
    "RuleError",
    "SandboxPolicy",
    "Source",
]
