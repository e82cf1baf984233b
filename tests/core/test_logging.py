"""The state of each layer is logged."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging
logging.basicConfig(level=logging.DEBUG)
from nyx_core.sandbox import SandboxPolicy, apply_policy
apply_policy(SandboxPolicy.MINIMAL, cooperative_only=True)
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the limits of the guide are POSIX limits")
def test_each_layer_is_logged() -> None:
    """With debug logging, every layer has a line with its state and reason."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    assert "DEBUG:nyx.sandbox:limits active" in done.stderr
    assert "DEBUG:nyx.sandbox:umask" in done.stderr or "process active: umask 077" in done.stderr
