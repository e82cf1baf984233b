"""One plugin while it runs: its record, its runs, their lifecycle, calls and limits."""
