"""What CI runs is what the README promises."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readmes_test_command_to_the_letter() -> None:
    """The second command of README.md stands in `.ci/run` as it stands there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = [line.removeprefix("$ ") for line in readme.splitlines() if line.endswith("-m pytest")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
