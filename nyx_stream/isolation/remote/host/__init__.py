"""The host's side of a plugin in another process."""
