"""The layers of Linux."""
