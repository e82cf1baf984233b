"""The tables of promises, profiles and jobs in the reference match the code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nyx_core.macos.profile import profile
from nyx_core.openbsd.promises import promises, unveils
from nyx_core.sandbox.confinement import SandboxPolicy, confinement_for
from nyx_core.windows.job_objects import JobRequest
from nyx_core.windows.platform import unenforceable

ROOT = Path(os.path.abspath(__file__)).parents[3]
PAGES = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/reference").glob("platforms*.md")))


@pytest.mark.parametrize("policy", SandboxPolicy)
def test_profiles_are_printed_as_they_are_applied(policy: SandboxPolicy) -> None:
    """The reference has the profile of each policy, word for word."""
    text = profile(confinement_for(policy), ())
    assert f"{policy.name}:\n\n```text\n{text}```" in PAGES


@pytest.mark.parametrize("policy", SandboxPolicy)
def test_promises_are_printed_as_they_are_made(policy: SandboxPolicy) -> None:
    """The reference has the promises of each policy, and that neither unveils anything."""
    wanted = confinement_for(policy)
    assert f"| {policy.name} | `{promises(wanted)}` | nothing" in PAGES
    assert unveils(wanted, ("/opt/python",)) == ()


def test_jobs_are_described_as_they_are_made() -> None:
    """Both policies give the same job, and the reference names what it leaves open under STRICT."""
    minimal, strict = map(confinement_for, (SandboxPolicy.MINIMAL, SandboxPolicy.STRICT))
    limits = JobRequest.of(minimal, 0).limits
    assert limits == JobRequest.of(strict, 0).limits
    assert (limits.active_processes, limits.process_memory, limits.kill_on_close) == (1, 128 << 20, True)
    assert unenforceable(minimal) == ()
    assert f"`{', '.join(unenforceable(strict))}`: the `access` layer is unavailable" in PAGES
