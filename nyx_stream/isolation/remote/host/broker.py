"""Host side of capability requests: handles every request of one worker, and answers it once.

Theory of operation
-------------------
A capability at this level is a pair of bindings (see `isolation.registry`). The *host binding* is a `Handler`: it holds
the service that an inline plugin would use, and carries out what the worker asks. The *worker binding* asks. The two
agree on actions and arguments. A worker is not trusted, so pydantic validates what it sent by the annotations of the
action, and the service decides. A request that no worker binding would send ends the worker.

A worker may have a capability narrowed, to hand on less of it. The host gives each narrowed handler a number, which is
valid on this connection only, so a worker cannot guess another's, and each request says by number which one it means.
The worker returns the number, with its next `narrow`, when its stub is gone. A number that was returned, or never
given, is named by no worker binding.

What a handler raises reaches the plugin: `SandboxDenied`, `LimitExceeded` and `OSError` as they are, anything else as a
`CapabilityError` with the name of its class and its text. So such a text must not contain anything that the worker may
not learn.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, PydanticSerializationError

from nyx_stream.errors import LimitExceeded
from nyx_stream.isolation.capability_set import CapabilitySet
from nyx_stream.isolation.registry import REGISTRY
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    MAX_NARROWED,
    MAX_RULE_LENGTH,
    MAX_RULES,
    NARROW,
    Arguments,
    CapabilityRequest,
    CapabilityResponse,
    LeaseEnded,
    RemoteFault,
    decode,
    fault_of,
)
from nyx_stream.policy.limits import Term

_log = logging.getLogger("nyx.isolation")

_STRICT = ConfigDict(strict=True)
_CANCELLED = RemoteFault(reason="other", name="CancelledError")


class Reply(NamedTuple):
    """A handler's answer. The broker sends the descriptors and closes them."""

    value: JsonValue = None
    descriptors: tuple[int, ...] = ()


class Narrow(Arguments):
    """`narrow`. The capability interprets `rules` and `mode`; `returned` are numbers that the worker gives back."""

    rules: Annotated[list[Annotated[str, Field(max_length=MAX_RULE_LENGTH)]], Field(min_length=1, max_length=MAX_RULES)]
    mode: Literal["r", "rw"] = "r"
    terms: Annotated[dict[Annotated[str, Field(max_length=16)], Term | None], Field(max_length=16)]
    returned: Annotated[list[int], Field(max_length=MAX_NARROWED)]


class Handler:
    """Base of the host bindings: one capability of one plugin. Its tasks are attributed to the host.

    A subclass lists in `actions` the methods that a worker may have called. Each takes the arguments of the request,
    validated strictly by its annotations, and is cancelled when the plugin cancels and when the worker ends.
    """

    capability: ClassVar[str]
    actions: ClassVar[tuple[str, ...]]
    _callers: ClassVar[dict[str, Callable[[ArgsKwargs], Coroutine[Any, Any, Reply]]]]
    """By action: validates arguments, and calls its method with them."""

    def __init_subclass__(cls) -> None:
        adapters = {action: TypeAdapter(getattr(cls, action), config=_STRICT) for action in cls.actions}
        cls._callers = {action: adapter.validator.validate_python for action, adapter in adapters.items()}

    def __init__(self, capabilities: CapabilitySet) -> None:
        self._plugin = capabilities.plugin
        self._service: Any = capabilities.service(self.capability)

    def handle(self, action: str, arguments: dict[str, JsonValue]) -> Coroutine[Any, Any, Reply]:
        """Carries out a request.

        Raises:
            ProtocolFault, ValidationError: no worker binding would send this. The worker is ended.
        """
        call = self._callers.get(action)
        if call is None:
            raise ProtocolFault(f"{self.capability} has no action {action!r}")
        return call(ArgsKwargs((self,), arguments))

    def narrow(self, ask: Narrow) -> Self:
        """Returns a handler for less, which must have the action `close`. Raises as the `narrow` of the service."""
        raise ProtocolFault(f"{self.capability} cannot be narrowed")

    def watch(self, ended: Callable[[Exception], None]) -> None:
        """Has a function called once, with the error, when the lease ends."""

    async def aclose(self) -> None:
        """Ends what the handler holds. `CapabilitySet` ends the service."""


class _Narrowed(NamedTuple):
    capability: str
    handler: Handler
    rules: int
    """Its own and those of the capabilities that it was narrowed from: each request is checked against all of them."""


class Broker:
    """Handles the requests of one worker. A request that is not valid ends the channel, and so the worker."""

    def __init__(self, capabilities: CapabilitySet, channel: Channel) -> None:
        self._capabilities = capabilities
        self._plugin = capabilities.plugin
        self._channel = channel
        self._handlers: dict[str, Handler] = {}
        self._narrowed: dict[int, _Narrowed] = {}
        self._numbers = count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def ask(self, frame: Frame) -> None:
        """Handles REQUEST. Raises `ProtocolFault` if it is malformed or names a capability that there isn't."""
        request = decode(CapabilityRequest, frame)
        if request.capability not in REGISTRY:
            raise ProtocolFault(f"no capability {request.capability!r}")
        narrowed = self._narrowed.get(request.narrowed)
        if request.narrowed and (narrowed is None or narrowed.capability != request.capability):
            raise ProtocolFault(f"{request.capability} {request.narrowed} was not given to it")
        name = f"nyx:{self._plugin}:{request.capability}"
        task = asyncio.get_running_loop().create_task(self._answer(frame.id, request, narrowed), name=name)
        self._tasks[frame.id] = task

    def cancel(self, frame: Frame) -> None:
        """Handles CANCEL: the plugin gets its answer when the handler has ended."""
        task = self._tasks.get(frame.id)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancels all requests, waits for them, and closes the handlers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._narrowed.clear()  # their leases end with the plugin's
        for name, handler in self._handlers.items():
            try:
                await handler.aclose()
            except Exception as error:  # one that fails to close must not keep the others open
                _log.error("plugin %s: closing %s failed", self._plugin, name, exc_info=error)
        self._handlers.clear()

    async def _answer(self, number: int, request: CapabilityRequest, narrowed: _Narrowed | None) -> None:
        fault: RemoteFault | None = None
        try:
            if narrowed is not None:
                handler = narrowed.handler
            else:
                handler = self._handlers.get(request.capability) or self._make(request.capability)
            if request.action == NARROW:
                reply = await self._narrow(request, handler, narrowed)
            else:
                reply = await handler.handle(request.action, request.arguments)
            self._send(number, reply)
        except ProtocolFault as error:
            self._channel.fail(error)
        except ValidationError as error:
            faults = f"{error.error_count()} faults in its arguments"
            self._channel.fail(ProtocolFault(f"{request.capability} {request.action}: {faults}"))
        except asyncio.CancelledError:
            fault = _CANCELLED  # the worker expects one answer for each number
        except Exception as error:
            fault = fault_of(error)
        finally:
            self._tasks.pop(number, None)
        if fault is not None:
            self._channel.send(FrameKind.REQUEST_FAILED, number, body=fault.encode())

    def _make(self, capability: str) -> Handler:
        handler = self._handlers[capability] = REGISTRY[capability].handler(self._capabilities)
        handler.watch(partial(self._report_end, 0, capability))
        return handler

    async def _narrow(self, request: CapabilityRequest, handler: Handler, parent: _Narrowed | None) -> Reply:
        """Returns the number of a handler that is narrowed from the given one."""
        narrow = Narrow.model_validate(request.arguments)
        for number in narrow.returned:
            returned = self._narrowed.pop(number, None)
            if returned is None:
                raise ProtocolFault(f"{number} was returned and is not held")
            # It ends now: a lease that only its time would end must not outlive the number that counts it.
            await returned.handler.handle("close", {})
        rules = len(narrow.rules) + (0 if parent is None else parent.rules)
        if rules > MAX_RULES:
            raise self._exceeded("rules", MAX_RULES, f"{rules} rules in one, those above it counted")
        if len(self._narrowed) >= MAX_NARROWED:
            raise self._exceeded("narrowed", MAX_NARROWED, f"{len(self._narrowed)} narrowed capabilities are held")
        less, number = handler.narrow(narrow), next(self._numbers)
        self._narrowed[number] = _Narrowed(request.capability, less, rules)
        less.watch(partial(self._report_end, number, request.capability))
        return Reply(number)

    def _exceeded(self, limit: str, allowed: int, detail: str) -> LimitExceeded:
        return LimitExceeded(plugin=self._plugin, limit=limit, allowed=allowed, detail=detail)

    def _report_end(self, number: int, capability: str, error: Exception) -> None:
        body = LeaseEnded(capability=capability, fault=fault_of(error)).encode()
        self._channel.send(FrameKind.LEASE_ENDED, number, body=body)

    def _send(self, number: int, reply: Reply) -> None:
        try:
            body = CapabilityResponse(value=reply.value).encode()
        except PydanticSerializationError:
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise
        self._channel.send(
            FrameKind.RESPONSE, number, body=body, descriptors=reply.descriptors, on_refused=_descriptors_refused
        )


def _descriptors_refused(error: OSError) -> bytes:
    why = "too many descriptors are in transit to processes of this user that don't receive them: try again later"
    return fault_of(OSError(error.errno, why)).encode()
