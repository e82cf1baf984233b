"""Host side of the capabilities of one worker: every ASK is handled here and answered once. Knows no capability.

A capability at this level is a pair. Its *handler* runs here, holds the guarded capability that an inline plugin would
hold, and does what it is asked. Its *proxy* (see `line`) runs in the worker and is what the plugin sees. The two agree
on actions and arguments; what a worker sends is a stranger's input, so a handler validates it by pydantic models of
its own and lets the guarded capability decide.

A handler that is also a `narrowings.Narrowable` can be narrowed; each ASK says by number which one it means.

To add a capability, see `isolation.registry`.

What a handler raises reaches the plugin: a `SandboxDenied`, a `LimitExceeded` and an `OSError` as themselves, anything
else as a `CapabilityError` with the name of its class and its text, which the proxy may turn into what its users
expect. Nothing that must not enter the worker may stand in the text of such an error.
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
from nyx_stream.isolation.capability_set import CapabilitySet, Shared
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


class Reply(NamedTuple):
    """What a handler answers. The descriptors are the broker's from now on: it sends them and closes them."""

    value: JsonValue = None
    descriptors: tuple[int, ...] = ()


class Handler(Protocol):
    """One capability of one plugin, host side. Its tasks run as the host's own code."""

    async def handle(self, action: str, arguments: dict[str, JsonValue]) -> Reply:
        """Does what the worker asks. Is cancelled when the plugin cancels, and when the worker ends.

        Raises:
            ProtocolFault: no proxy would send this. The worker is ended.
        """

    async def aclose(self) -> None:
        """Ends what the handler holds. The guarded capability itself is ended by `CapabilitySet`."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a handler is made with: the plugin's assignment, and its capabilities as it would have them inline."""

    assignment: Assignment
    provision: CapabilitySet
    shared: Shared

    @property
    def plugin(self) -> str:
        """The plugin's id."""
        return self.assignment.grant.manifest.id


HandlerFactory: TypeAlias = Callable[[Means], Handler]


class Broker:
    """Handles what one worker asks. An ASK that no proxy would send ends the channel, and so the worker."""

    def __init__(self, means: Means, factories: Mapping[str, HandlerFactory], channel: Channel) -> None:
        self._means = means
        self._factories = factories
        self._channel = channel
        self._handlers: dict[str, Handler] = {}
        self._narrowings = Attenuations(means.plugin, self._tell_end)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def ask(self, frame: Frame) -> None:
        """Takes an ASK. Raises `ProtocolFault` if it is malformed or names a capability that there is not."""
        ask = decode(CapabilityRequest, frame)
        if ask.capability not in self._factories:
            raise ProtocolFault(f"no capability {ask.capability!r}")
        narrowed = self._narrowings.at(ask) if ask.narrowed else None
        name = f"nyx:{self._means.plugin}:{ask.capability}"
        task = asyncio.get_running_loop().create_task(self._answer(frame.id, ask, narrowed), name=name)
        self._tasks[frame.id] = task

    def cancel(self, frame: Frame) -> None:
        """Takes a CANCEL: the plugin is told when the handler has ended."""
        task = self._tasks.get(frame.id)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancels what is under way, waits for it, and closes the handlers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._narrowings.clear()
        for name, handler in self._handlers.items():
            try:
                await handler.aclose()
            except Exception as error:  # one that does not close must not keep the others open
                _log.error("plugin %s: closing %s failed", self._means.plugin, name, exc_info=error)
        self._handlers.clear()

    async def _answer(self, number: int, ask: CapabilityRequest, narrowed: Narrowable | None) -> None:
        try:
            handler = narrowed or self._handlers.get(ask.capability) or self._make(ask.capability)
            if ask.action == NARROW:
                reply = Reply(await self._narrowings.add(ask, handler))
            else:
                reply = await handler.handle(ask.action, ask.arguments)
            self._send_answer(number, reply)
        except ProtocolFault as fault:
            self._channel.fail(fault)
        except ValidationError as error:
            self._channel.fail(
                ProtocolFault(f"{ask.capability} {ask.action}: {error.error_count()} faults in its arguments")
            )
        except asyncio.CancelledError:
            # Answered like any failure: the worker counts on one answer for each number.
            self._channel.send(
                FrameKind.REQUEST_FAILED, number, body=RemoteFault(reason="other", name="CancelledError").encode()
            )
        except Exception as error:
            self._channel.send(FrameKind.REQUEST_FAILED, number, body=fault_of(error).encode())
        finally:
            self._tasks.pop(number, None)

    def _make(self, capability: str) -> Handler:
        handler = self._handlers[capability] = self._factories[capability](self._means)
        self._narrowings.watch(capability, handler)
        return handler

    def _tell_end(self, number: int, capability: str, error: Exception) -> None:
        self._channel.send(
            FrameKind.LEASE_ENDED, number, body=LeaseEnded(capability=capability, fault=fault_of(error)).encode()
        )

    def _send_answer(self, number: int, reply: Reply) -> None:
        try:
            body = CapabilityResponse(value=reply.value).encode()
        except PydanticSerializationError:
            for descriptor in reply.descriptors:
                os.close(descriptor)
            raise
        self._channel.send(FrameKind.RESPONSE, number, body=body, descriptors=reply.descriptors, on_refused=_not_passed)


def _not_passed(error: OSError) -> bytes:
    why = "too many descriptors are on their way to processes of this user that do not take them: try again later"
    return fault_of(OSError(error.errno, why)).encode()
