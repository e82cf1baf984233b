"""Arguments and options that several commands share, and the directories that they stand for."""

import os
from enum import StrEnum
from typing import Annotated

import typer

from nyx_stream.host.operations.start import default_data_dir
from nyx_stream.policy import Places


class IsolationOption(StrEnum):
    """The isolation levels, as the host names them."""

    inline = "inline"
    process = "process"
    container = "container"


PluginArgument = Annotated[str, typer.Argument(help="The plugin's folder, or the id of an installed plugin.")]
MethodArgument = Annotated[str, typer.Argument(help="The exported method.")]
CallArguments = Annotated[list[str] | None, typer.Argument(help="key=value; a value is JSON, or otherwise text.")]
PolicyFile = Annotated[str, typer.Option(help="The policy file.")]
Isolation = Annotated[IsolationOption, typer.Option(help="The isolation level.")]
DataDir = Annotated[str | None, typer.Option(help="The host's data directory.")]
AuditFile = Annotated[str | None, typer.Option(help="Append every decision to this audit log.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def places_of(plugin_id: str, folder: str, data_dir: str | None) -> Places:
    """Returns `$DATA` and `$PLUGIN` of a plugin in `folder`, as `nyx run` would set them."""
    base = default_data_dir() if data_dir is None else os.path.abspath(data_dir)
    return {"$DATA": os.path.join(base, plugin_id), "$PLUGIN": os.path.realpath(folder)}


def expand(path: str, places: Places) -> str:
    """Returns a path with a leading `$DATA`, `$PLUGIN` or `./` expanded; other paths are returned unchanged."""
    first, slash, rest = path.partition("/")
    base = places.get("$PLUGIN" if first == "." else first)
    return path if base is None else f"{base}{slash}{rest}"
