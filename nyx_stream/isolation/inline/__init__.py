"""Level `inline`: the plugin runs on the host's event loop, in the tasks of its callers."""
