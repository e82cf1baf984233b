"""From a worker's order to its first word that it takes calls: its seal is judged and recorded before its plugin runs.

Knows the first frames and what may go wrong with them; neither how the process was made nor how it ends.
"""

import asyncio

from nyx_stream.errors import PluginCrashed, PluginError, PluginLoadError, PluginSetupError
from nyx_stream.isolation.backend import Assignment
from nyx_stream.isolation.process.seal import SealRefused, judge
from nyx_stream.isolation.remote.host.calls import RemoteCalls, cause_of
from nyx_stream.isolation.remote.host.log import LogIntake
from nyx_stream.isolation.remote.host.seal_record import Told, read_report, record_from
from nyx_stream.isolation.remote.wire.channel import Channel
from nyx_stream.isolation.remote.wire.frames import Frame, Kind, ProtocolFault
from nyx_stream.isolation.remote.wire.messages import Order, Ready, RemoteFault, Sealed, decode
from nyx_stream.text import escape


class Handshake:
    """The handshake with one worker."""

    def __init__(self, assignment: Assignment, log: LogIntake) -> None:
        self._name = assignment.grant.manifest.id
        self._audit = assignment.audit
        self._log = log
        self._frames: asyncio.Queue[Frame | PluginError] = asyncio.Queue()

    def take(self, frame: Frame) -> None:
        """Takes a frame that is for nobody else."""
        self._frames.put_nowait(frame)

    def fail(self, error: PluginError) -> None:
        """Takes what came instead of a frame: the worker is gone."""
        self._frames.put_nowait(error)

    async def take_part(self, order: Order, channel: Channel, calls: RemoteCalls) -> Sealed:
        """Lets the plugin's code start once its worker is sealed as ordered; returns when `calls` can be made.

        Raises:
            PluginLoadError: the worker is not sealed, broke the protocol, or died; or the code does not import.
            PluginSetupError: the plugin's `setup` raised.
        """
        try:
            sealed = decode(Sealed, await self._next(Kind.SEALED))
            told, gaps = self._judge(order, sealed)
            channel.send(Kind.START)
            self._record(told, gaps)  # in the same turn of the loop: nothing of the plugin's comes before it
            calls.offer(decode(Ready, await self._next(Kind.READY)).methods)
            return sealed
        except ProtocolFault as fault:
            channel.fail(fault)
            raise PluginLoadError(self._name, f"it broke the protocol: {fault}") from fault
        except PluginCrashed as error:
            raise PluginLoadError(self._name, error.message) from error

    async def _next(self, kind: Kind) -> Frame:
        """Waits for the next frame. Raises what went wrong instead."""
        frame = await self._frames.get()
        if isinstance(frame, PluginError):
            raise frame
        if frame.kind is kind:
            return frame
        fault = decode(RemoteFault, frame)
        error = PluginSetupError if fault.reason == "setup" else PluginLoadError
        raise error(self._name, escape(fault.message)) from cause_of(fault)

    def _judge(self, order: Order, sealed: Sealed) -> tuple[Told, tuple[tuple[str, str], ...]]:
        """Takes the worker's report, or refuses it. Returns what goes on record, and what the policy lets pass."""
        try:
            gaps = judge(order, sealed)
            return read_report(sealed.report), gaps
        except SealRefused as error:
            raise PluginLoadError(self._name, f"its worker is not sealed: {error}") from error

    def _record(self, told: Told, gaps: tuple[tuple[str, str], ...]) -> None:
        for layer, reason in gaps:
            self._log.warning(f"runs without {layer}, as its policy allows: {reason}")
        if self._audit is not None:
            self._audit(record_from(self._name, told, gaps))
