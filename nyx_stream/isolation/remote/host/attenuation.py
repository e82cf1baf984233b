"""Host side of narrowing: what one worker has narrowed, by the numbers that it was given for it. Knows no capability.

A number is of the connection that it was given out on, and of no other: there is nothing that a worker could guess. A
worker names it with each request; it gives it back, with the next narrowing, when its proxy is gone. What was given
back, and what was never given, is named by no proxy: that ends the worker.
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

Told = Callable[[int, str, Exception], None]
"""Tells the worker that a lease ended: the number, the capability, the error."""


class Narrow(Arguments):
    """`narrow`. What the rules are, and whether there is a mode, the capability knows; `returned` are numbers."""

    rules: Annotated[list[Annotated[str, Field(max_length=MAX_RULE_LENGTH)]], Field(min_length=1, max_length=MAX_RULES)]
    mode: Literal["r", "rw"] = "r"
    terms: Annotated[dict[Annotated[str, Field(max_length=16)], Term | None], Field(max_length=16)]
    returned: Annotated[list[int], Field(max_length=MAX_NARROWED)]


@runtime_checkable
class Narrowable(Protocol):
    """A handler (see `broker`) whose capability can be narrowed. What was narrowed takes `close`, too."""

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Any:
        """As every handler's."""

    def narrow(self, ask: Narrow) -> "Narrowable":
        """Returns a handler for less. Raises what the capability's own `narrow` does, for values that were read."""

    def watch(self, told: Callable[[Exception], None]) -> None:
        """Has `told` called once, with the error, when the lease ends."""


class _Held(NamedTuple):
    capability: str
    handler: Narrowable
    rules: int
    """Its own, and those of the ones above it: each is looked at for every request."""


class Attenuations:
    """The narrowed capabilities of one worker."""

    def __init__(self, plugin: str, told: Told) -> None:
        self._plugin = plugin
        self._told = told
        self._numbers = count(1)
        self._held: dict[int, _Held] = {}

    def at(self, ask: CapabilityRequest) -> Narrowable:
        """Returns the handler that a request names. Raises `ProtocolFault` if there is none."""
        held = self._held.get(ask.narrowed)
        if held is None or held.capability != ask.capability:
            raise ProtocolFault(f"{ask.capability} {ask.narrowed} was not given to it")
        return held.handler

    def watch(self, capability: str, handler: object, number: int = 0) -> None:
        """Has the worker told when the lease behind a handler ends."""
        if isinstance(handler, Narrowable):
            handler.watch(partial(self._told, number, capability))

    async def add(self, ask: CapabilityRequest, handler: object) -> int:
        """Narrows what a request names; returns the number of what comes out.

        Raises:
            LimitExceeded: it holds too many, or one with too many rules.
            ProtocolFault: it cannot be narrowed.
        """
        narrow = Narrow.model_validate(ask.arguments)
        if not isinstance(handler, Narrowable):
            raise ProtocolFault(f"{ask.capability} cannot be narrowed")
        for number in narrow.returned:
            await self._take_back(number)
        above = self._held.get(ask.narrowed)
        rules = len(narrow.rules) + (0 if above is None else above.rules)
        if rules > MAX_RULES:
            raise self._exceeded("rules", MAX_RULES, f"{rules} rules in one, those above it counted")
        if len(self._held) >= MAX_NARROWED:
            raise self._exceeded("narrowed", MAX_NARROWED, f"{len(self._held)} narrowed capabilities are held")
        less, number = handler.narrow(narrow), next(self._numbers)
        self._held[number] = _Held(ask.capability, less, rules)
        self.watch(ask.capability, less, number)
        return number

    def clear(self) -> None:
        """Forgets all of them; their leases end with those that they hang on."""
        self._held.clear()

    async def _take_back(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is None:
            raise ProtocolFault(f"{number} was returned and is not held")
        # It ends now: a lease that only its time would end must not outlive the number that counts it.
        await held.handler.handle("close", {})

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self._plugin, limit=limit, allowed=allowed, detail=detail)
