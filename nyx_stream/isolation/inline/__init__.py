"""Level `inline`: the plugin runs in the host's process. What it does is attributed and recorded, not contained."""
