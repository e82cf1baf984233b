"""Host side of attenuation: the narrowed capabilities of one worker, by number.

Theory of operation
-------------------
The host gives each narrowed capability a number, which is valid on this connection only, so a worker cannot guess
another's. A worker names it with each request. It returns the number, with its next `narrow`, when its stub is gone. A
number that was returned, or never given, is named by no worker binding: it ends the worker.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field, JsonValue

from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.remote.wire.frames import ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    MAX_NARROWED,
    MAX_RULE_LENGTH,
    MAX_RULES,
    Arguments,
    CapabilityRequest,
)
from nyx_stream.policy.limits import Term


class Narrow(Arguments):
    """`narrow`. The capability interprets `rules` and `mode`; `returned` are numbers that the worker gives back."""

    rules: Annotated[list[Annotated[str, Field(max_length=MAX_RULE_LENGTH)]], Field(min_length=1, max_length=MAX_RULES)]
    mode: Literal["r", "rw"] = "r"
    terms: Annotated[dict[Annotated[str, Field(max_length=16)], Term | None], Field(max_length=16)]
    returned: Annotated[list[int], Field(max_length=MAX_NARROWED)]


@runtime_checkable
class Narrowable(Protocol):
    """A handler (see `broker`) whose capability can be narrowed. The narrowed one also handles `close`."""

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Any:
        """See `broker.Handler`."""

    def narrow(self, ask: Narrow) -> "Narrowable":
        """Returns a handler for less. Raises as the `narrow` of the service."""

    def watch(self, ended: Callable[[Exception], None]) -> None:
        """Has a function called once, with the error, when the lease ends."""


class _Narrowed(NamedTuple):
    capability: str
    handler: Narrowable
    rules: int
    """Its own and those of the capabilities that it was narrowed from: each request is checked against all of them."""


class Attenuations:
    """The narrowed capabilities of one worker.

    Args:
        plugin: the plugin's id.
        ended: called with number, capability and error when a lease ends.
    """

    def __init__(self, plugin: str, ended: Callable[[int, str, Exception], None]) -> None:
        self._plugin = plugin
        self._ended = ended
        self._numbers = count(1)
        self._narrowed: dict[int, _Narrowed] = {}

    def find(self, request: CapabilityRequest) -> Narrowable:
        """Returns the handler that a request names. Raises `ProtocolFault` for an unknown number."""
        narrowed = self._narrowed.get(request.narrowed)
        if narrowed is None or narrowed.capability != request.capability:
            raise ProtocolFault(f"{request.capability} {request.narrowed} was not given to it")
        return narrowed.handler

    def watch(self, capability: str, handler: object, number: int = 0) -> None:
        """Reports the end of a handler's lease to `ended`."""
        if isinstance(handler, Narrowable):
            handler.watch(partial(self._ended, number, capability))

    async def add(self, request: CapabilityRequest, handler: object) -> int:
        """Narrows what a request names; returns the number of the narrowed capability.

        Raises:
            LimitExceeded: the worker holds too many, or one with too many rules.
            ProtocolFault: the capability can't be narrowed.
        """
        narrow = Narrow.model_validate(request.arguments)
        if not isinstance(handler, Narrowable):
            raise ProtocolFault(f"{request.capability} cannot be narrowed")
        for number in narrow.returned:
            await self._take_back(number)
        parent = self._narrowed.get(request.narrowed)
        rules = len(narrow.rules) + (0 if parent is None else parent.rules)
        if rules > MAX_RULES:
            raise self._exceeded("rules", MAX_RULES, f"{rules} rules in one, those above it counted")
        if len(self._narrowed) >= MAX_NARROWED:
            raise self._exceeded("narrowed", MAX_NARROWED, f"{len(self._narrowed)} narrowed capabilities are held")
        less, number = handler.narrow(narrow), next(self._numbers)
        self._narrowed[number] = _Narrowed(request.capability, less, rules)
        self.watch(request.capability, less, number)
        return number

    def clear(self) -> None:
        """Forgets all of them; their leases end with the plugin's."""
        self._narrowed.clear()

    async def _take_back(self, number: int) -> None:
        narrowed = self._narrowed.pop(number, None)
        if narrowed is None:
            raise ProtocolFault(f"{number} was returned and is not held")
        # It ends now: a lease that only its time would end must not outlive the number that counts it.
        await narrowed.handler.handle("close", {})

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self._plugin, limit=limit, allowed=allowed, detail=detail)
