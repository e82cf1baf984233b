"""Importing a public package does not import heavy packages before they are needed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import nyx_stream", {"asyncio", "pydantic", "httpx", "importlib.metadata"}),
        ("from nyx_stream import Plugin, export", {"asyncio", "pydantic", "httpx"}),
        ("import nyx_stream.policy", {"asyncio", "pydantic", "httpx"}),
        ("from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy", {"asyncio", "pydantic", "httpx"}),
        ("from nyx_stream import PluginHost", {"pydantic", "httpx"}),
    ],
)
def test_an_import_does_not_import_heavy_packages(code: str, without: set[str]) -> None:
    """In a new interpreter, the import leaves these packages unimported."""
    # -I: neither the environment nor a start-up file of this checkout imports one of them.
    script = f"import sys; sys.path = {sys.path!r}\n{code}\nprint(*(set(sys.modules) & {without!r}))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
