"""Host side of capability requests: handles every request of one worker, and answers it once.

Theory of operation
-------------------
A capability at this level is a pair of bindings (see `isolation.registry`). The *host binding* is a `Handler`: it holds
the service that an inline plugin would use, and carries out what the worker asks. The *worker binding* asks. The two
agree on actions and arguments. A worker is not trusted, so a handler validates what it sent by pydantic models, and
lets the service decide. A request that no worker binding would send ends the worker.

A handler that is `Narrowable` can be narrowed; each request says by number which of its narrowed ones it means.

What a handler raises reaches the plugin: `SandboxDenied`, `LimitExceeded` and `OSError` as they are, anything else as a
`CapabilityError` with the name of its class and its text. So such a text must not contain anything that the worker may
not learn.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from pydantic import JsonValue, ValidationError
from pydantic_core import PydanticSerializationError

from nyx_stream.isolation.backend import Assignment
from nyx_stream.isolation.capability_set import CapabilitySet
from nyx_stream.isolation.remote.host.attenuation import Attenuations, Narrowable
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, FrameKind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import (
    NARROW,
    CapabilityRequest,
    CapabilityResponse,
    LeaseEnded,
    RemoteFault,
    decode,
    fault_of,
)

_log = logging.getLogger("nyx.isolation")

_CANCELLED = RemoteFault(reason="other", name="CancelledError")


class Reply(NamedTuple):
    """A handler's answer. The broker sends the descriptors and closes them."""

    value: JsonValue = None
    descriptors: tuple[int, ...] = ()


class Handler(Protocol):
    """One capability of one plugin, host side. Its tasks are attributed to the host."""

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        """Carries out a request. Is cancelled when the plugin cancels, and when the worker ends.

        Raises:
            ProtocolFault, ValidationError: no worker binding would send this. The worker is ended.
        """

    async def aclose(self) -> None:
        """Ends what the handler holds. `CapabilitySet` ends the service."""


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """What a handler is made with: the plugin's assignment and its services."""

    assignment: Assignment
    capabilities: CapabilitySet

    @property
    def plugin(self) -> str:
        """The plugin's id."""
        return self.assignment.grant.manifest.id


HandlerFactory: TypeAlias = Callable[[HandlerContext], Handler]


class Broker:
    """Handles the requests of one worker. A request that is not valid ends the channel, and so the worker."""

    def __init__(self, context: HandlerContext, factories: Mapping[str, HandlerFactory], channel: Channel) -> None:
        self._context = context
        self._plugin = context.plugin
        self._factories = factories
        self._channel = channel
        self._handlers: dict[str, Handler] = {}
        self._attenuations = Attenuations(self._plugin, self._report_end)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def ask(self, frame: Frame) -> None:
        """Handles REQUEST. Raises `ProtocolFault` if it is malformed or names an unknown capability."""
        request = decode(CapabilityRequest, frame)
        if request.capability not in self._factories:
            raise ProtocolFault(f"no capability {request.capability!r}")
        narrowed = self._attenuations.find(request) if request.narrowed else None
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
        self._attenuations.clear()
        for name, handler in self._handlers.items():
            try:
                await handler.aclose()
            except Exception as error:  # one that fails to close must not keep the others open
                _log.error("plugin %s: closing %s failed", self._plugin, name, exc_info=error)
        self._handlers.clear()

    async def _answer(self, number: int, request: CapabilityRequest, narrowed: Narrowable | None) -> None:
        fault: RemoteFault | None = None
        try:
            handler = narrowed or self._handlers.get(request.capability) or self._make(request.capability)
            if request.action == NARROW:
                reply = Reply(await self._attenuations.add(request, handler))
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
        handler = self._handlers[capability] = self._factories[capability](self._context)
        self._attenuations.watch(capability, handler)
        return handler

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
