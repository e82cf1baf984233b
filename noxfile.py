"""Development tasks: `nox -l` lists them, `nox -s lint` runs one.

Each session creates its environment under `.nox`. `nox --no-venv` uses the environment that nox is installed in
instead; `.ci/run` does that, so CI installs the development tools once.
"""

import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "layers", "docs", "tests"]

FIGURES = Path("build", "benchmarks")
COVERAGE = Path("build", "coverage")
PLATFORM_NEUTRAL = ["nyx_core/sandbox"]
# While code runs, coverage opens files on that code's stack, which the tripwire refuses to plugins.
NOT_UNDER_COVERAGE = ["tests/escape/inline/test_imports.py::test_tracebacks_logs_and_warnings_show_source_lines"]
OTHER_PLATFORMS = {
    "win32": ["nyx_core/windows", "nyx_core/beneath/windows.py"],
    "darwin": ["nyx_core/macos", "nyx_core/openbsd", "nyx_core/posix"],
}


def install_extra(session: nox.Session, extra: str) -> None:
    """Installs this package with an extra, unless the session uses an existing environment."""
    if session.venv_backend != "none":
        session.install("--quiet", "-e", f".[{extra}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff."""
    if session.venv_backend != "none":
        tools = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["dev"]
        session.install("--quiet", *(tool for tool in tools if tool.startswith("ruff")))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, for this platform and for the modules of the others."""
    install_extra(session, "dev")
    session.run("mypy", "--strict", "nyx_core", "nyx_stream")
    for platform, modules in OTHER_PLATFORMS.items():
        session.run("mypy", "--strict", "--platform", platform, *modules, *PLATFORM_NEUTRAL)


@nox.session
def layers(session: nox.Session) -> None:
    """Check the import contracts between packages."""
    install_extra(session, "dev")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a dead link is an error. `nox -s docs -- SITE` keeps the site in that folder."""
    install_extra(session, "dev")
    with tempfile.TemporaryDirectory() as temporary:
        site = session.posargs[0] if session.posargs else temporary
        command = ["mkdocs", "build", "--strict", "--quiet", "--config-file", "docs/site/mkdocs.yml"]
        session.run(*command, "--site-dir", str(Path(site).resolve()), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests. Arguments after `--` go to pytest."""
    install_extra(session, "dev")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and report which lines and branches ran. Sealed workers aren't measured."""
    install_extra(session, "dev")
    left_out = [argument for test in NOT_UNDER_COVERAGE for argument in ("--deselect", test)]
    session.run("coverage", "run", "-m", "pytest", *left_out, *session.posargs)
    session.run("coverage", "html", "--quiet", "--directory", str(COVERAGE))
    session.run("coverage", "report")


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick benchmarks and keep their figures and report in `build/benchmarks`."""
    try:
        install_extra(session, "bench")
    except nox.command.CommandFailed:
        session.warn("some peers can't be installed here: measuring without them")
        install_extra(session, "cli")
    FIGURES.mkdir(parents=True, exist_ok=True)
    kept = ["--json", str(FIGURES / "figures.json"), "--html", str(FIGURES / "report.html")]
    session.run("python", "-m", "benchmarks", "--quick", *kept, *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the source distribution and the wheel into `dist`, and check their metadata."""
    session.install("--quiet", "build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").glob("*")))
