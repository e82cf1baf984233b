"""What every test shares: asyncio as the one event loop, deterministic properties, and what this kernel offers."""

import gc
import platform
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from nyx_core.sandbox import probe

# The same examples in every run; wall time is no matter of tests.
settings.register_profile("nyx", derandomize=True, deadline=None, database=None, max_examples=200)
settings.load_profile("nyx")


@pytest.fixture
def anyio_backend() -> str:
    """Nyx runs on asyncio; anyio's plugin drives the tests on it."""
    return "asyncio"


@pytest.fixture(scope="session")
def nursery() -> Iterator[object]:
    """The nursery that interpreters are forked from, where there can be one. Here, or each room would have its own."""
    if sys.platform != "linux":
        yield None
        return
    from tests.conformance.nursery import Nursery  # most rooms need none of it

    nursery = Nursery()
    yield nursery
    nursery.close()


def pytest_report_header() -> list[str]:
    """Says what the run stands on: the system, and which layers its kernel offers."""
    survey = probe()
    layers = ", ".join(f"{layer.name} {layer.state.value}" for layer in survey.layers)
    facts = ", ".join(f"{name} {value}" for name, value in survey.facts)
    return [f"nyx: {platform.platform()}, Python {sys.version.split()[0]}, {facts}", f"nyx: {layers}"]


def pytest_collection_finish() -> None:
    """Sets aside what was imported: tests collect garbage to see what is left behind, and need not look through it."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts the skips by their reason, so that a run never hides what it could not show."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "?"
        reasons[reason] = reasons.get(reason, 0) + 1
    terminalreporter.section("skips by reason")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4}  {reason}")
    terminalreporter.line(f"{sum(reasons.values())} skipped in all")
