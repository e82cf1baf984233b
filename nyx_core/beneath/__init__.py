"""Opening below a directory that is held open, so that no name can lead out of it."""
