"""The audit hook that refuses and attributes what inline plugin code does past its capabilities."""
