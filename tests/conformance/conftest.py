"""Every check here runs at every isolation level: a plugin must not be able to tell one from another."""

from tests.conformance.nursery import interpreters, ready

__all__ = ["interpreters", "ready"]
