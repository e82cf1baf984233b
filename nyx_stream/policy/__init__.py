"""What may be: rules as frozen values, read from text once. Decides nothing, opens nothing but the named file."""

from typing import TYPE_CHECKING, Any

from nyx_stream.policy.approval import Approval
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.credential import Credential
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.path_rule import NO_PLACES, Mode, PathRule, Places
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import Source
from nyx_stream.policy.sandbox_policy import SandboxPolicy
from nyx_stream.policy.terms import LeaseTerms

if TYPE_CHECKING:
    from nyx_stream.policy.grant import Grant
    from nyx_stream.policy.manifest import Manifest

__all__ = [
    "NO_PLACES",
    "Approval",
    "ConnectRule",
    "Credential",
    "Grant",
    "LeaseTerms",
    "Limits",
    "Manifest",
    "Mode",
    "PathRule",
    "Places",
    "RequestRule",
    "SandboxPolicy",
    "Source",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: a guard without plugins needs neither.
    if name == "Grant":
        from nyx_stream.policy.grant import Grant

        return Grant
    if name == "Manifest":
        from nyx_stream.policy.manifest import Manifest

        return Manifest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
