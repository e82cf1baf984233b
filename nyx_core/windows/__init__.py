"""Layers of Windows: one mechanism per file."""
