"""What each check costs, beside what it replaces. `python -m benchmarks` runs all of it.

One file per claim, `bench_<claim>.py`, with a function `run(budget)` that yields rows and growth curves; the rest is
the instrument. Nothing here is part of the packages.
"""
