"""A bounded, reproducible run of a coverage-guided fuzzer over everything that a worker sends."""

import importlib
import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from nyx_stream.isolation.remote.wire.confinement import missing_sockets

ROOT = Path(__file__).resolve().parents[2]
RUNS = {"machine": 20_000, "host": 2_000}


def seeds(number: int) -> list[bytes]:
    """Scripts to begin with: random ones, long enough for a conversation."""
    made = random.Random(number)
    return [made.randbytes(made.randrange(20, 400)) for _ in range(number)]


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has no wheel for every Python and system",
)
@pytest.mark.parametrize("target", RUNS)
def test_no_input_raises_an_undocumented_error(target, tmp_path):
    """A coverage-guided run finds no input that raises one; a finding is reported with its traceback."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(200)):
        (corpus / f"{number}").write_bytes(seed)
    options = ["-seed=1", f"-runs={RUNS[target]}", "-max_len=400", "-len_control=0", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, "-m", "tests.fuzz.run", target, *options, str(corpus)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    assert f"Done {RUNS[target]} runs" in done.stderr


@pytest.mark.skipif(bool(missing_sockets()), reason="no channel here")
@pytest.mark.parametrize("target", RUNS)
def test_the_seeds_pass_without_the_fuzzer(target):
    """The same scripts on every Python and system, also where there is no fuzzer."""
    consume = importlib.import_module(f"tests.fuzz.{target}").consume
    for seed in seeds(400):
        consume(seed)
