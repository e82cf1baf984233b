"""The `connect` capability: TCP connections to the hosts that a connect rule grants."""
