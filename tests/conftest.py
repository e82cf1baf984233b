"""What every test shares: asyncio as the one event loop, and a header that says what this kernel offers."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Nyx runs on asyncio; anyio's plugin drives the tests on it."""
    return "asyncio"
