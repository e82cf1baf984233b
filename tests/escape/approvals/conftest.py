"""What asks is at either level; how its process came about is no matter here."""

from tests.conformance.nursery import interpreters, ready

__all__ = ["interpreters", "ready"]
