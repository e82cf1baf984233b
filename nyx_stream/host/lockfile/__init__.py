"""The lock file: which version and content of each plugin was accepted."""
