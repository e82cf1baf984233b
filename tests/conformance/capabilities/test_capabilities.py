"""Every case runs at every level, and must not be able to tell one from another: it returns the same, errors with their
text included, and the same is recorded.
"""

import ast
from typing import Any

import pytest

from tests.conformance.capabilities.conftest import PLUGIN, Level
from tests.conformance.machine import missing
from tests.plugin_fixtures import LEVELS

MODULES = ("files", "http", "connect", "env", "limits", "narrow", "narrow_files")


def cases_of(module: str) -> list[str]:
    """The public functions of a module of cases, read as text: only the plugin imports it."""
    tree = ast.parse((PLUGIN / f"cases_{module}.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef) and node.name[0] != "_"]


# In a worker, wrong arguments are found before the host is asked; inline, with the opening itself. What is
# cancelled may have been asked for or not.
NOT_COMPARED = {("files", "wrong_arguments_open_nothing"), ("files", "a_cancelled_write_leaves_the_old_content")}

EVERY = [pytest.param(module, case, id=f"{module}-{case}") for module in MODULES for case in cases_of(module)]

_told: dict[tuple[str, str], Any] = {}


@pytest.mark.parametrize(("module", "case"), EVERY)
@pytest.mark.parametrize("level", LEVELS)
async def test_a_case_holds_and_returns_and_records_what_it_does_inline(
    levels: dict[str, Level], level: str, module: str, case: str
) -> None:
    """What a case claims holds at this level, and its outcome and the audit are those of level `inline`."""
    if level not in levels:
        pytest.skip(f"this machine cannot seal a process: {missing()}")
    told, recorded = await levels[level].run(module, case)
    inline = _told.setdefault((module, case), (told, recorded))
    assert told == inline[0]
    assert recorded == inline[1] or (module, case) in NOT_COMPARED
