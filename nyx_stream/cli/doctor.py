"""`nyx doctor`: what this machine could enforce. Changes nothing."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from nyx_core.sandbox import probe
from nyx_stream.cli import output
from nyx_stream.text import escape


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which layers of the sandbox this machine has, and what would provide those that it lacks."""
    survey = probe()
    if json:
        output.say_json({"nyx": _version(), "python": platform.python_version(), **survey.to_dict()})
        return
    output.say(f"nyx {_version()}, Python {platform.python_version()}")
    for line in survey.to_table().splitlines():
        output.say(escape(line))


def _version() -> str:
    try:
        return version("nyx-sandbox")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"
