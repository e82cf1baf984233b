"""Policies, manifests and limits: rules as frozen values, parsed from text once.

`Manifest`, `Grant` and the optional permissions are in the modules of their names: `manifest`, `grant`, `approval`.
"""

from nyx_stream.policy.credential import Credential
from nyx_stream.policy.limits import LeaseTerms, Limits
from nyx_stream.policy.rules import NO_PLACES, ConnectRule, Mode, PathRule, Places, RequestRule, RuleError, Source
from nyx_stream.policy.sandbox_policy import SandboxPolicy

__all__ = [
    "NO_PLACES",
    "ConnectRule",
    "Credential",
    "LeaseTerms",
    "Limits",
    "Mode",
    "PathRule",
    "Places",
    "RequestRule",
    "RuleError",
    "SandboxPolicy",
    "Source",
]
