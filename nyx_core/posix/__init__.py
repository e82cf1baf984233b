"""The layers that every POSIX system has."""
