"""What a doorway brings along: the heavy packages come where they are used, not before."""

import subprocess
import sys

import pytest

import nyx_stream.audit


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import nyx_stream", {"asyncio", "pydantic", "httpx"}),
        ("from nyx_stream import Plugin, export", {"asyncio", "pydantic", "httpx"}),
        ("from nyx_stream.plugin_sandbox import SandboxGuard, SandboxPolicy", {"asyncio", "pydantic", "httpx"}),
        ("from nyx_stream import PluginHost", {"pydantic", "httpx"}),
    ],
)
def test_a_doorway_does_without_what_it_does_not_need_yet(code: str, without: set[str]) -> None:
    """In a new interpreter, none of the packages is there after the import."""
    # -I: neither the environment nor a start-up file of this checkout brings one of them.
    script = f"import sys; sys.path = {sys.path!r}\n{code}\nprint(*(set(sys.modules) & {without!r}))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_the_audit_package_exports_is_there() -> None:
    """Each name is there, though most are looked up late; any other is an error."""
    for name in nyx_stream.audit.__all__:
        assert getattr(nyx_stream.audit, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = nyx_stream.audit.nothing
