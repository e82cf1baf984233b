"""What a host tells to the outside: Prometheus text and OpenTelemetry. The host imports none of it.

`prometheus` needs the extra `prometheus`, `otel` the extra `otel`; nothing here imports either before it is asked for.
"""
