"""The interface for hosts that use the guard alone: a policy, its decision point, and the errors it raises."""

from nyx_stream.errors import FilesystemDenied, NetworkDenied, SandboxDenied
from nyx_stream.guard import Decision, SandboxGuard
from nyx_stream.policy import SandboxPolicy

__all__ = ["Decision", "FilesystemDenied", "NetworkDenied", "SandboxDenied", "SandboxGuard", "SandboxPolicy"]
