"""The bounds of a grant: limits, lease terms, and the units in which people write both (`"128MiB"`, `"5s"`, `8`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

_SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]*)")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]+)")
_MIB = 2**20


def parse_size(value: object) -> int:
    """Returns bytes for an integer of bytes or a text such as `"128MiB"` or `"10 MB"`. Raises `ValueError`."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None or match[2] not in _SIZES:
            raise ValueError(f'{value!r} isn\'t a size; write for example "64MiB", "10MB" or a number of bytes')
        value = int(match[1]) * _SIZES[match[2]]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} isn't a size")
    if value <= 0:
        raise ValueError("a size must be greater than zero")
    return value


def parse_duration(value: object) -> float:
    """Returns seconds for a number of seconds or a text such as `"5s"`, `"250ms"`, `"2min"`. Raises `ValueError`."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None or match[2] not in _SECONDS:
            raise ValueError(f'{value!r} isn\'t a duration; write for example "5s", "250ms" or "2min"')
        value = float(match[1]) * _SECONDS[match[2]]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} isn't a duration")
    if not 0 < value < 10**9:
        raise ValueError("a duration must be greater than zero and finite")
    return float(value)


def parse_count(value: object) -> int:
    """Returns a whole number greater than zero. Raises `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} isn't a whole number")
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


def _size(default: int | None = None) -> Any:
    return field(default=default, metadata={"parse": parse_size, "print": print_size})


def _seconds(default: float | None = None) -> Any:
    return field(default=default, metadata={"parse": parse_duration, "print": print_duration})


def _count(default: int | None = None) -> Any:
    return field(default=default, metadata={"parse": parse_count, "print": int})


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, durations seconds. Memory, processes and open files default to the sandbox's hard limits.

    `response_bytes` and `request_bytes` bound one body, on the wire and decoded; `header_bytes` all headers of one
    response; `read_bytes` what one call may read from a file at once; `redirects` the hops of one request; `cpu_time`
    the processor time of one process of the plugin, from its start to its end.
    """

    memory: int = _size(128 * _MIB)
    response_bytes: int = _size(32 * _MIB)
    request_bytes: int = _size(32 * _MIB)
    header_bytes: int = _size(64 * 2**10)
    read_bytes: int = _size(32 * _MIB)
    call_timeout: float = _seconds(30.0)
    setup_timeout: float = _seconds(10.0)
    request_timeout: float = _seconds(300.0)
    concurrency: int = _count(64)
    queue: int = _count(1024)
    connections: int = _count(100)
    redirects: int = _count(20)
    open_files: int = _count(128)
    processes: int = _count(50)
    cpu_time: float = _seconds(86400.0)

    @classmethod
    def of(cls, **values: object) -> Self:
        """Returns limits with `values` parsed and defaults elsewhere. Raises the errors of `with_values`."""
        return cls().with_values(**values)

    def with_values(self, **values: object) -> Self:
        """Returns a copy with `values` parsed: `memory="128MiB"`, `call_timeout="5s"`, `concurrency=8`.

        Raises:
            ValueError: a value does not parse; the message begins with its name.
            TypeError: a name is not a limit.
        """
        return replace(self, **{name: parse_limit(name, value) for name, value in values.items()})

    def meet(self, other: Self) -> Self:
        """Returns the smaller value of each limit."""
        return type(self)(**{f.name: min(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})

    def printed(self) -> dict[str, str | int]:
        """Returns every limit as a policy file writes it."""
        return {f.name: print_term(f.name, getattr(self, f.name)) for f in fields(self)}


Term = int | float
"""Bytes, seconds or a count, depending on the term."""

TERMS: Mapping[str, tuple[str, ...]] = {
    "http": ("ttl", "requests", "bytes_in", "bytes_out", "seconds"),
    "files": ("ttl", "opens"),
    "connect": ("ttl",),
}
"""By capability, the terms that every isolation level enforces. An open file is a descriptor, so its bytes can't be
counted."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long and how much one capability may be used before its lease ends. A term that is `None` is unbounded.

    Attributes:
        capability: `"http"`, `"files"` or `"connect"`.
        ttl: seconds from the beginning of the lease to its end.
        requests: requests that may be sent, redirect hops included.
        bytes_in, bytes_out: bytes of all requests and responses, heads included, before TLS.
        seconds: seconds in which at least one request is in flight, to the last byte of its response.
        opens: files that may be opened, read or written.
    """

    capability: str
    ttl: float | None = _seconds()
    requests: int | None = _count()
    bytes_in: int | None = _size()
    bytes_out: int | None = _size()
    seconds: float | None = _seconds()
    opens: int | None = _count()

    @classmethod
    def of(cls, capability: str, **terms: object) -> Self:
        """Returns parsed terms: `LeaseTerms.of("http", ttl="60s", requests=100)`. Raises `ValueError`."""
        return cls(capability, **parse_terms(capability, terms))  # type: ignore[arg-type]  # each by its own parser

    def given(self) -> dict[str, Term]:
        """Returns the terms that are set, by name."""
        terms = ((f.name, getattr(self, f.name)) for f in fields(self) if f.metadata)
        return {name: value for name, value in terms if value is not None}

    def printed(self) -> dict[str, str | int]:
        """Returns the terms that are set, as a policy file writes them."""
        return {name: print_term(name, value) for name, value in self.given().items()}


_UNITS = {f.name: f.metadata for bounds in (Limits, LeaseTerms) for f in fields(bounds) if f.metadata}


def parse_limit(name: str, value: object) -> Any:
    """Returns the value of a limit; raises the errors of `Limits.with_values`."""
    known = Limits.__dataclass_fields__
    if name not in known:
        raise TypeError(f"no limit is named {name!r}; there are {', '.join(known)}")
    return _parsed(name, value)


def parse_terms(capability: str, terms: Mapping[str, object]) -> dict[str, Term | None]:
    """Returns the values of terms written by people. `None` stays `None`: it lifts a term.

    Raises:
        ValueError: the capability or one of its terms does not exist, or a value does not parse.
    """
    if capability not in TERMS:
        raise ValueError(f"no capability {capability!r}; there are {', '.join(TERMS)}")
    parsed: dict[str, Term | None] = {}
    for name, value in terms.items():
        if name not in TERMS[capability]:
            raise ValueError(f"{name}: a lease of {capability} has no such term; it has {', '.join(TERMS[capability])}")
        parsed[name] = None if value is None else _parsed(name, value)
    return parsed


def print_term(name: str, value: Term) -> str | int:
    """Returns a limit or a term as a person would write it."""
    text: str | int = _UNITS[name]["print"](value)
    return text


def _parsed(name: str, value: object) -> Any:
    try:
        return _UNITS[name]["parse"](value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
