"""What asks is at either level; how its process came about is no matter here."""

from tests.conformance.nursery import interpreters, nursery, ready

__all__ = ["interpreters", "nursery", "ready"]
