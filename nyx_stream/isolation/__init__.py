"""Where a plugin runs. Each level carries out the same small protocol (`seam.Isolation`); none knows the host."""
