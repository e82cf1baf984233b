"""Layers that every POSIX system has: limits, environment, session. Must not know one OS from another."""
