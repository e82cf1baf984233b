"""The layers of Windows."""
