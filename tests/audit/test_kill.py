"""`kill -9` at any moment: acknowledged events are kept, the chain verifies, the next opening repairs the end."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROUNDS = 500
SEED = 20_250_701
ROUNDS_PER_FILE = 5


@pytest.mark.skipif(sys.platform == "win32", reason="the writers are forked, and killed by SIGKILL")
def test_nothing_acknowledged_is_lost_at_500_random_moments(tmp_path):
    """After each kill the log verifies and holds every acknowledged event of that writer, in order and once."""
    program = Path(__file__).with_name("killed_writers.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(ROUNDS), str(SEED)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    assert [one for one in rounds if one["fault"] is not None] == []
    assert [one for one in rounds if one["kept"] < one["acknowledged"] or not one["in order"]] == []
    # The seed yields kills before, during and after writing, and during rotations.
    assert sum(one["acknowledged"] > 0 for one in rounds) > ROUNDS // 4
    assert max(one["segments"] for one in rounds) > 2
    # The next writer of a file reports that it repaired an unfinished line.
    for one, following in pairwise(rounds):
        if one["unfinished"] and following["round"] % ROUNDS_PER_FILE and following["acknowledged"]:
            assert following["repairs"] > one["repairs"]
