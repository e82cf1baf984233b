"""One span for each call, and its duration. A `host.observing.Observer`; knows no host."""

import asyncio
from time import perf_counter

from opentelemetry import context, trace
from opentelemetry.metrics import Histogram
from opentelemetry.trace import Span, StatusCode, Tracer

from nyx_stream.audit import AuditEvent
from nyx_stream.host.observability.call_observer import Call
from nyx_stream.observe.otel.attributes import Attributes, of_call, of_event

_OURS = context.create_key("nyx-call")


class Calls:
    """Begins a span for each call; while the plugin runs in the caller's task, it is the current one."""

    def __init__(self, tracer: Tracer, durations: Histogram) -> None:
        self._tracer = tracer
        self._durations = durations

    def begin(self, call: Call) -> "_Observation":
        """A call begins."""
        attributes = of_call(call)
        span = self._tracer.start_span(f"{call.plugin}/{attributes['code.function.name']}", attributes=attributes)
        return _Observation(span, self._durations, attributes)


class _Observation:
    def __init__(self, span: Span, durations: Histogram, attributes: Attributes) -> None:
        self._span = span
        self._durations = durations
        self._attributes = attributes
        self._begun = perf_counter()
        self._context = context.set_value(_OURS, span, trace.set_span_in_context(span))

    def enter(self) -> None:
        self._token = context.attach(self._context)

    def leave(self) -> None:
        context.detach(self._token)

    def end(self, error: BaseException | None) -> None:
        took = perf_counter() - self._begun
        if error is not None:
            # Its name alone: texts of errors are the plugin's, and may hold what it worked with.
            self._attributes["error.type"] = type(error).__qualname__
            self._span.set_attribute("error.type", type(error).__qualname__)
            if not isinstance(error, asyncio.CancelledError):
                self._span.set_status(StatusCode.ERROR)
        told = ("nyx.plugin.id", "nyx.isolation", "nyx.stream", "code.function.name", "error.type")
        # In the context of the span, so that an exemplar can lead to it.
        self._durations.record(
            took, {key: self._attributes[key] for key in told if key in self._attributes}, self._context
        )
        self._span.end()


def add_event(event: AuditEvent) -> None:
    """Adds a printable event to the span of the call that the running code serves, if there is one."""
    span = context.get_value(_OURS)
    if isinstance(span, Span) and span.is_recording():
        span.add_event(f"nyx.{event.kind}", of_event(event))
