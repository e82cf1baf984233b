"""A plugin in another process, however that process was made: the wire, the host's side and the worker's side."""
