"""The decision point: a policy compiled into look-ups."""

from nyx_stream.guard.decision import Decision, PathVerdict, RequestVerdict
from nyx_stream.guard.guard import SandboxGuard, path_text
from nyx_stream.guard.narrowed_guard import NarrowedGuard

__all__ = ["Decision", "NarrowedGuard", "PathVerdict", "RequestVerdict", "SandboxGuard", "path_text"]
