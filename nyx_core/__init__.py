"""OS-level limits for one process. Knows nothing of plugins and never imports `nyx_stream`.

The doorway is `nyx_core.sandbox`.
"""
