"""Configuration of every test: asyncio as the event loop, deterministic properties, and a report of the kernel."""

import gc
import platform
import sys

import pytest
from hypothesis import settings

from nyx_core.sandbox import probe

pytest_plugins = ["tests.plugin_fixtures"]

# The same examples in every run, and no deadline: tests don't measure wall time.
settings.register_profile("nyx", derandomize=True, deadline=None, database=None, max_examples=200)
settings.load_profile("nyx")


@pytest.fixture
def anyio_backend() -> str:
    """Nyx runs on asyncio; anyio's plugin drives the tests on it."""
    return "asyncio"


def pytest_report_header() -> list[str]:
    """Reports the system, and the sandbox layers of its kernel."""
    survey = probe()
    layers = ", ".join(f"{layer.name} {layer.state.value}" for layer in survey.layers)
    facts = ", ".join(f"{name} {value}" for name, value in survey.facts)
    return [f"nyx: {platform.platform()}, Python {sys.version.split()[0]}, {facts}", f"nyx: {layers}"]


def pytest_collection_finish() -> None:
    """Freezes what was imported, so that the garbage collections of the tests are fast."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts the skipped tests by their reason."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "?"
        reasons[reason] = reasons.get(reason, 0) + 1
    terminalreporter.section("skips by reason")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4}  {reason}")
    terminalreporter.line(f"{sum(reasons.values())} skipped in all")
