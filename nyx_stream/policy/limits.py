"""The bounds of a grant, all finite. A plugin gets the smaller of what it asks and what its policy gives."""

from dataclasses import dataclass, field, fields, replace
from typing import Self

from nyx_stream.policy.units import parse_count, parse_duration, parse_size, print_duration, print_size

_MIB = 2**20


def _size(default: int) -> int:
    value: int = field(default=default, metadata={"parse": parse_size, "print": print_size})
    return value


def _seconds(default: float) -> float:
    value: float = field(default=default, metadata={"parse": parse_duration, "print": print_duration})
    return value


def _count(default: int) -> int:
    value: int = field(default=default, metadata={"parse": parse_count, "print": int})
    return value


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
        """Returns limits with `values` parsed, the defaults elsewhere; raises as `with_values`."""
        return cls().with_values(**values)

    def with_values(self, **values: object) -> Self:
        """Returns a copy with `values` parsed: `memory="128MiB"`, `call_timeout="5s"`, `concurrency=8`.

        Raises:
            ValueError: a value does not parse; the message begins with its name.
            TypeError: there is no such limit.
        """
        known = {f.name: f for f in fields(self)}
        parsed = {}
        for name, value in values.items():
            if name not in known:
                raise TypeError(f"no limit is named {name!r}; there are {', '.join(known)}")
            try:
                parsed[name] = known[name].metadata["parse"](value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return replace(self, **parsed)

    def meet(self, other: Self) -> Self:
        """Returns the smaller value of each limit."""
        return type(self)(**{f.name: min(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})

    def printed(self) -> dict[str, str | int]:
        """Returns every limit as a policy file writes it."""
        return {f.name: f.metadata["print"](getattr(self, f.name)) for f in fields(self)}
