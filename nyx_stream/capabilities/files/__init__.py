"""The `files` capability: the guard decides on the text, the system on where it leads, and both must allow
it."""

from nyx_stream.capabilities.files.base import Files
from nyx_stream.capabilities.files.guarded_files import GuardedFiles

__all__ = ["Files", "GuardedFiles"]
