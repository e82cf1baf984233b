"""How long and how far a capability may be used before its lease stops it. Values and their texts; counts nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Self

from nyx_stream.policy.units import parse_count, parse_duration, parse_size, print_duration, print_size

Term = int | float
"""Bytes, seconds or a count, after the name of the term."""

_PARSE: Mapping[str, Callable[[object], Term]] = {
    "ttl": parse_duration,
    "requests": parse_count,
    "bytes_in": parse_size,
    "bytes_out": parse_size,
    "seconds": parse_duration,
    "opens": parse_count,
}
_PRINT: Mapping[str, Callable[..., str | int]] = {
    "ttl": print_duration,
    "bytes_in": print_size,
    "bytes_out": print_size,
    "seconds": print_duration,
}

TERMS: Mapping[str, tuple[str, ...]] = {
    "http": ("ttl", "requests", "bytes_in", "bytes_out", "seconds"),
    "files": ("ttl", "opens"),
    "connect": ("ttl",),
}
"""By capability, the terms that are enforced for it at every isolation level; a file that is open is a descriptor,
whose bytes nobody counts."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """The terms of one capability's lease; `None` where there is none.

    Attributes:
        capability: `"http"` or `"files"`.
        ttl: seconds from the beginning of the lease to its end.
        requests: requests that may be sent, redirect hops included.
        bytes_in, bytes_out: bytes of all requests and responses, heads included, before TLS.
        seconds: seconds in which at least one request is under way, to the last byte of its response.
        opens: files that may be opened, read or written.
    """

    capability: str
    ttl: float | None = None
    requests: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    seconds: float | None = None
    opens: int | None = None

    @classmethod
    def of(cls, capability: str, **terms: object) -> Self:
        """Returns terms from their texts: `LeaseTerms.of("http", ttl="60s", requests=100)`; raises `ValueError`."""
        return cls(capability, **parse_terms(capability, terms))  # type: ignore[arg-type]  # each by its own parser

    def given(self) -> dict[str, Term | None]:
        """Returns the terms that are set, by name."""
        terms = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "capability")
        return {name: value for name, value in terms if value is not None}

    def printed(self) -> dict[str, str | int]:
        """Returns the terms that are set, as a policy file writes them."""
        return {name: print_term(name, value) for name, value in self.given().items() if value is not None}


def parse_terms(capability: str, terms: Mapping[str, object]) -> dict[str, Term | None]:
    """Returns the values of terms given as people write them; `None` stays `None`, and lifts a term.

    Raises:
        ValueError: there is no such capability, it has no such term, or a value does not parse.
    """
    if capability not in TERMS:
        raise ValueError(f"no capability {capability!r}; there are {', '.join(TERMS)}")
    parsed: dict[str, Term | None] = {}
    for name, value in terms.items():
        if name not in TERMS[capability]:
            raise ValueError(f"{name}: a lease of {capability} has no such term; it has {', '.join(TERMS[capability])}")
        try:
            parsed[name] = None if value is None else _PARSE[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return parsed


def print_term(name: str, value: Term) -> str | int:
    """Returns a term as a person would write it."""
    return _PRINT.get(name, int)(value)
