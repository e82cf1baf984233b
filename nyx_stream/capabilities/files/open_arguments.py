"""The arguments of `files.open`: what the built-in `open` is to put on a descriptor. Opens nothing."""

import encodings
import io
from collections.abc import Callable
from functools import partial

from nyx_stream.capabilities.files.open_files import File

Layers = Callable[..., File]
"""The built-in `open` but for the path and the `opener`, which gives the descriptor."""


def layers_of(
    mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None, closefd: bool
) -> Layers:
    """Checks the arguments as far as they could be a plugin's code, and returns the layers.

    Raises:
        ValueError, TypeError, LookupError: wrong arguments, as the built-in `open`.
    """
    if not closefd:
        raise ValueError("cannot use closefd=False with a file name")
    # The opening runs as the host: nothing of the plugin's may run in it, neither a number's or a text's methods
    # nor a codec.
    if type(mode) is not str or type(buffering) is not int:
        raise TypeError("mode must be a str, buffering an int")
    if not all(value is None or type(value) is str for value in (encoding, errors, newline)):
        raise TypeError("encoding, errors and newline must be str or None")
    if encoding is not None and encodings.search_function(encoding) is None:
        raise LookupError(f"unknown encoding: {encoding}")
    return partial(io.open, mode=mode, buffering=buffering, encoding=encoding, errors=errors, newline=newline)
