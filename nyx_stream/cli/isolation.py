"""The option `--isolation`, the same for every command that has it."""

from enum import StrEnum


class IsolationOption(StrEnum):
    """The levels, as the host names them."""

    inline = "inline"
    process = "process"
    container = "container"
