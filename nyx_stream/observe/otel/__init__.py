"""A host's logs, traces and metrics for OpenTelemetry. Needs the extra `otel`, which is the API alone.

Where they go is the application's to set up, with an SDK of its choice.
"""

from nyx_stream.observe.otel.telemetry import Telemetry

__all__ = ["Telemetry"]
