"""Layers of OpenBSD: one mechanism per file."""
