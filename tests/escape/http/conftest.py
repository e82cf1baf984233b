"""The fixtures of the capability's own tests: both libraries, one certificate authority."""

from tests.capabilities.http.conftest import authority, kind

__all__ = ["authority", "kind"]
