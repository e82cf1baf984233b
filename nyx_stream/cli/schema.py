"""`nyx schema`: the JSON Schema of a policy file or of `plugin.toml`, for editors."""

from enum import StrEnum
from typing import Annotated

import typer

from nyx_stream.cli import output
from nyx_stream.policy.schema import manifest_schema, policy_schema


class File(StrEnum):
    """The files that have a schema."""

    policy = "policy"
    manifest = "manifest"


def schema(file: Annotated[File, typer.Argument(help="Which file's schema.")]) -> None:
    """Print the JSON Schema of a file, for an editor that completes and checks TOML."""
    output.say_json(policy_schema() if file is File.policy else manifest_schema())
