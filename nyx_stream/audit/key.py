"""The key of a chain, from a file."""

import os

from nyx_stream.audit.chain import KEY_SIZES
from nyx_stream.regular_file import open_regular


def read_key(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a key file, without a newline at its end.

    Raises:
        OSError: it cannot be read.
        ValueError: it has not 16 to 64 bytes.
    """
    with open_regular(path) as file:
        key = file.read(KEY_SIZES.stop + 2).removesuffix(b"\n").removesuffix(b"\r")
    if len(key) not in KEY_SIZES:
        raise ValueError(f"{os.fspath(path)}: a key has {KEY_SIZES.start} to {KEY_SIZES.stop - 1} bytes")
    return key
