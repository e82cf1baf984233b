"""One plugin at run time: its record, its runs with their lifecycle, calls, limits and leases, and the backends."""
