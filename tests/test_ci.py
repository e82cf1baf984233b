"""CI runs what the README promises."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readme_test_command() -> None:
    """`.ci/run` contains the README's second command, unchanged, and runs nothing after it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = [line.removeprefix("$ ") for line in readme.splitlines() if line.endswith("-m pytest")]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    _, _, after = script.partition(command)
    assert after.split() == ["else", '"$bin/python"', "-m", "pytest", "fi"]
