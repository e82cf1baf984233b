"""Benchmarks of every check next to its baseline. `python -m benchmarks` runs all of them.

Each `bench_<claim>.py` has a function `run(budget)` that yields rows and growth curves. The other modules measure and
report. None of this is part of the installed packages.
"""
