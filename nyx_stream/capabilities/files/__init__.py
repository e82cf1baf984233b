"""The `files` capability: the object that a plugin holds (`Files`), and the service that opens files for it."""

from nyx_stream.capabilities.files.files import Files

GuardedFiles = Files
"""The name that plugin authors know the class by."""

__all__ = ["Files", "GuardedFiles"]
