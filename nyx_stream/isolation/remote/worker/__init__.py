"""Worker side: seals its process, then runs one plugin."""
