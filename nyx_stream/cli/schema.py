"""`nyx schema`: the JSON Schema of a policy file, of `plugin.toml`, or of a line of the audit log."""

from enum import StrEnum
from typing import Annotated

import typer

from nyx_stream.audit.schema import audit_schema
from nyx_stream.cli import output
from nyx_stream.policy.manifest_file import manifest_schema
from nyx_stream.policy.policy_file import policy_schema


class File(StrEnum):
    """The files that have a schema."""

    policy = "policy"
    manifest = "manifest"
    audit = "audit"


_SCHEMAS = {File.policy: policy_schema, File.manifest: manifest_schema, File.audit: audit_schema}


def schema(file: Annotated[File, typer.Argument(help="Which file's schema.")]) -> None:
    """Print the JSON Schema of a file, for an editor that completes and checks TOML, or a program that reads a log."""
    output.say_json(_SCHEMAS[file]())
