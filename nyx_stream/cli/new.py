"""`nyx new`: creates a plugin that passes `nyx check` and its own test."""

import errno
import os
import re
from importlib.resources import files
from string import Template
from typing import Annotated

import typer

from nyx_stream.cli import output

_FILES = {
    "plugin.toml": "plugin.toml.txt",
    "policy.toml": "policy.toml.txt",
    "{module}.py": "plugin.py.txt",
    "test_{module}.py": "test_plugin.py.txt",
}


def new(
    directory: Annotated[str, typer.Argument(help="The folder to create; its name becomes the plugin's id.")],
) -> None:
    """Create a plugin: manifest, policy, code and a test."""
    name = os.path.basename(os.path.abspath(directory))
    names = _names(name)
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise FileExistsError(errno.EEXIST, "the folder is not empty", directory)
    for target, source in _FILES.items():
        text = files("nyx_stream.cli").joinpath("skeleton", source).read_text(encoding="utf-8")
        path = os.path.join(directory, target.format_map(names))
        with open(path, "x", encoding="utf-8") as file:
            file.write(Template(text).substitute(names))
        output.print_text(path.replace(os.sep, "/"))


def _names(name: str) -> dict[str, str]:
    """Returns id, module and class for a folder's name. Raises `typer.BadParameter` if none can be derived."""
    plugin = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64]
    module = plugin.replace("-", "_")
    if not module.isidentifier():
        raise typer.BadParameter("the folder's name must start with a letter and have letters, digits and hyphens")
    return {"id": plugin, "module": module, "cls": "".join(part.capitalize() for part in module.split("_"))}
