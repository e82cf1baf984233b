"""The layers of OpenBSD."""
