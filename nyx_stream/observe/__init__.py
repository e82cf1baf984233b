"""Exports what a host does: `prometheus` needs the extra `prometheus`, and `otel` the extra `otel`."""
