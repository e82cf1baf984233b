"""For plugin authors: run a plugin under the real guard in a test, and look at what it was denied."""

from nyx_stream.testing.run import RunningPlugin, run_plugin

__all__ = ["RunningPlugin", "run_plugin"]
