"""The decision point: rules compiled into look-ups. Pure; performs nothing and does no I/O."""

from nyx_stream.guard.decision import Decision, PathVerdict, RequestVerdict
from nyx_stream.guard.guard import SandboxGuard, path_text
from nyx_stream.guard.narrowed_guard import NarrowedGuard

__all__ = ["Decision", "NarrowedGuard", "PathVerdict", "RequestVerdict", "SandboxGuard", "path_text"]
