"""Sizes, durations and counts as people write them: `"128MiB"`, `"5s"`, `8`. Pure text."""

import re

_SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]*)")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]+)")


def parse_size(value: object) -> int:
    """Returns bytes for an integer of bytes or a text such as `"128MiB"` or `"10 MB"`. Raises `ValueError`."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None or match[2] not in _SIZES:
            raise ValueError(f'{value!r} is no size; write for example "64MiB", "10MB" or a number of bytes')
        value = int(match[1]) * _SIZES[match[2]]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no size")
    if value <= 0:
        raise ValueError("a size must be greater than zero")
    return value


def parse_duration(value: object) -> float:
    """Returns seconds for a number of seconds or a text such as `"5s"`, `"250ms"`, `"2min"`. Raises `ValueError`."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None or match[2] not in _SECONDS:
            raise ValueError(f'{value!r} is no duration; write for example "5s", "250ms" or "2min"')
        value = float(match[1]) * _SECONDS[match[2]]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no duration")
    if not 0 < value < 10**9:
        raise ValueError("a duration must be greater than zero and finite")
    return float(value)


def parse_count(value: object) -> int:
    """Returns a whole number greater than zero. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    if not 0 < value < 2**31:
        raise ValueError("a count must be greater than zero")
    return value


def print_size(size: int) -> str:
    """Returns the shortest text that `parse_size` reads back as `size`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def print_duration(seconds: float) -> str:
    """Returns a text that `parse_duration` reads back as `seconds`, to the microsecond."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
