"""What CI runs is what the README promises."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_ci_runs_the_readmes_test_command_to_the_letter() -> None:
    """The second command of README.md stands in `.ci/run` as it stands there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = [line.removeprefix("$ ") for line in readme.splitlines() if line.endswith("-m pytest")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_ci_runs_the_quick_benchmarks_before_the_tests_and_keeps_what_they_measured() -> None:
    """The folder of the figures is ignored by git and kept by the workflow; the tests come last."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    [kept] = [line.removeprefix("kept=") for line in script.splitlines() if line.startswith("kept=")]
    benchmarks, tests = script.index('-m benchmarks --quick --json "$kept/'), script.index('echo "== tests"')
    assert benchmarks < tests
    assert f"path: {kept}\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"/{kept.split('/')[0]}/" in ignored
