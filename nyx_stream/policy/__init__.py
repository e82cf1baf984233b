"""What may be: rules as frozen values, read from text once. Decides nothing, opens nothing but the named file."""

from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.credential import Credential
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.path_rule import NO_PLACES, Mode, PathRule, Places
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import Source
from nyx_stream.policy.sandbox_policy import SandboxPolicy
from nyx_stream.policy.terms import LeaseTerms

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
    "SandboxPolicy",
    "Source",
]
