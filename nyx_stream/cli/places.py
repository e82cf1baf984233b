"""Where `$DATA` and `$PLUGIN` are for a command: one rule for all of them, the rule that `nyx run` runs by."""

import os

from nyx_stream.host.operations.start import default_data_dir
from nyx_stream.policy import Places


def places_of(plugin_id: str, folder: str, data_dir: str | None) -> Places:
    """Returns the directories for a plugin in `folder`; its data directory is named by its id."""
    base = default_data_dir() if data_dir is None else os.path.abspath(data_dir)
    return {"$DATA": os.path.join(base, plugin_id), "$PLUGIN": os.path.realpath(folder)}


def expand(path: str, places: Places) -> str:
    """Returns a path of the command line with a leading `$DATA`, `$PLUGIN` or `./` put in; others as they are."""
    first, slash, rest = path.partition("/")
    base = places.get("$PLUGIN" if first == "." else first)
    return path if base is None else f"{base}{slash}{rest}"
