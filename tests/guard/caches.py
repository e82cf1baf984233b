"""Finds the decision cache of a guard, for tests of its bounds."""

import gc

from nyx_stream.guard.decision_cache import DecisionCache
from nyx_stream.plugin_sandbox import SandboxGuard


def cache_of(guard: SandboxGuard) -> DecisionCache:
    """Returns the cache that the guard uses now."""
    [cache] = [found for found in gc.get_referents(guard) if isinstance(found, DecisionCache)]
    return cache
