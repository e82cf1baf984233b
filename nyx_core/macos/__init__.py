"""Layers of macOS: one mechanism per file."""
