"""The command line as a whole: entry points, exit codes, and error messages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import nyx_stream
from nyx_core.sandbox import SandboxError
from nyx_stream.cli import ExitCode
from nyx_stream.cli.app import app
from nyx_stream.cli.exit_codes import code_of
from nyx_stream.errors import (
    AuditError,
    LimitExceeded,
    PluginCallError,
    PluginCrashed,
    PluginLoadError,
    PluginTimeout,
    PolicyError,
    UnknownMethod,
)
from tests.cli.conftest import Outcome

DOCS = Path(__file__).parents[2] / "docs"


def test_the_module_is_the_command():
    """`python -m nyx_stream` has the same arguments and exit codes."""
    command = [sys.executable, "-m", "nyx_stream"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0
    assert "why" in helped.stdout
    assert subprocess.run([*command, "nonsense"], capture_output=True, check=False).returncode == ExitCode.USAGE


def test_without_the_extra_the_error_names_what_to_install():
    """Without typer the exit code is 8, and the error is one line."""
    code = "import sys; sys.modules['typer'] = None; from nyx_stream.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.EXTRA
    assert done.stderr == "nyx: typer is not installed: pip install 'nyx-sandbox[cli]'\n"


def test_a_closed_pipe_is_not_an_error(case):
    """`nyx … | head -1` has exit code 0 and prints no error."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nyx_stream", "plan", str(case.plugin), "--policy", str(case.policy)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyError([]), ExitCode.CONFIG),
        (SandboxError("no"), ExitCode.SANDBOX),
        (LimitExceeded(plugin="p", limit="memory", allowed=1, detail="d"), ExitCode.LIMIT),
        (PluginTimeout("p", "m"), ExitCode.LIMIT),
        (PluginLoadError("p", "m"), ExitCode.PLUGIN),
        (UnknownMethod("p", "m"), ExitCode.CALL),
        (PluginCallError("p", "m"), ExitCode.CALL),
        (PluginCrashed("p", "m"), ExitCode.CALL),
        (AuditError("f", "m"), ExitCode.FILE),
        (FileNotFoundError(2, "m", "f"), ExitCode.FILE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError(), ExitCode.INTERNAL),
    ],
)
def test_every_error_has_a_code(error, code):
    """Each error of the tree has its code; any other exception is an internal error."""
    assert code_of(error) is code


def test_the_docs_have_the_table_of_exit_codes():
    """The docs list exactly these codes, with their meanings."""
    text = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_every_error_of_a_policy_is_printed(nyx, case):
    """The exit code is 3, and each error has file, line and caret."""
    case.policy.write_text('[allow]\nconnect = ["*", "http://x"]\nwrite = ["relative"]\n', encoding="utf-8")
    done = nyx("plan", case.plugin, *case.options())
    assert done.code == ExitCode.CONFIG
    assert done.err.count("policy.toml:2:") == 2
    assert "policy.toml:3:" in done.err
    assert "^" in done.err


@pytest.mark.parametrize("arguments", [("--nonsense",), ("why",), ("run", "x"), ("schema", "x"), ("audit", "show")])
def test_a_usage_error_is_one_line(nyx, arguments):
    """The exit code is 2."""
    done = nyx(*arguments)
    assert done.code == ExitCode.USAGE
    assert re.fullmatch(r"nyx: [^\n]+\(nyx --help\)\n", done.err)


def test_the_version_is_printed(nyx):
    """`nyx --version` prints the version of the package."""
    assert nyx("--version") == Outcome(0, f"nyx {nyx_stream.__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", nyx_stream.__version__)


def test_summaries_of_commands_are_complete_sentences(nyx):
    """`nyx --help` does not cut the summary of a command, in 80 columns."""
    _, commands = nyx("--help").out.split("Commands:\n")
    assert len(commands.splitlines()) == len(app.registered_commands)
    for line in commands.splitlines():
        assert line.endswith(".")
        assert not line.endswith("...")
        assert len(line) <= 80


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("run", "--help")])
def test_help_is_printed_to_stdout(nyx, arguments):
    """The exit code is 0."""
    done = nyx(*arguments)
    assert done.code == 0
    assert "Usage: nyx" in done.out


def test_schemas_are_valid(nyx):
    """Both schemas of TOML files are valid JSON Schemas."""
    for name in ("policy", "manifest"):
        schema = json.loads(nyx("schema", name).out)
        jsonschema.Draft202012Validator.check_schema(schema)
