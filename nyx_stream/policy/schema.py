"""JSON Schema of both files, for editors that complete and check TOML."""

from typing import Any

from nyx_stream.policy.manifest_file import ManifestFile
from nyx_stream.policy.policy_file import PolicyFile


def policy_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a policy file."""
    return PolicyFile.model_json_schema()


def manifest_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `plugin.toml`."""
    return ManifestFile.model_json_schema()
