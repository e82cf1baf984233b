"""The worker's side: runs one plugin, and reaches its capabilities by RPC."""
