"""The layers of macOS."""
