"""Layers of Linux: one mechanism per file."""
