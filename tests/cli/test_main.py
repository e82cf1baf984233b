"""The command as a whole: its doors, its exit codes, and how errors read."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from nyx_core.sandbox import SandboxError
from nyx_stream.cli import ExitCode
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

DOCS = Path(__file__).parents[2] / "docs"


def test_the_module_is_the_command():
    """`python -m nyx_stream` takes the same arguments and ends with the same codes."""
    command = [sys.executable, "-m", "nyx_stream"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert helped.returncode == 0
    assert "why" in helped.stdout
    assert subprocess.run([*command, "nonsense"], capture_output=True, check=False).returncode == ExitCode.USAGE


def test_without_the_extra_it_says_what_to_install():
    """Exit code 8 and one line, where typer is not installed."""
    code = "import sys; sys.modules['typer'] = None; from nyx_stream.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.EXTRA
    assert done.stderr == "nyx: typer is not installed: pip install 'nyx-sandbox[cli]'\n"


def test_a_reader_that_went_away_is_no_error(case):
    """`nyx … | head -1` ends quietly, with exit code 0."""
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
    """The table maps each error of the tree; what nobody expected is a fault of Nyx."""
    assert code_of(error) is code


def test_the_docs_have_the_table_of_exit_codes():
    """Every code stands in the docs with its meaning, and no other does."""
    text = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
    assert rows == {str(int(code)): code.meaning for code in ExitCode}


def test_every_fault_of_a_policy_is_printed(nyx, case):
    """Exit code 3, with file, line and caret of each."""
    case.policy.write_text('[allow]\nconnect = ["*", "http://x"]\nwrite = ["relative"]\n', encoding="utf-8")
    done = nyx("plan", case.plugin, *case.options())
    assert done.code == ExitCode.CONFIG
    assert done.err.count("policy.toml:2:") == 2
    assert "policy.toml:3:" in done.err
    assert "^" in done.err


@pytest.mark.parametrize("arguments", [("--nonsense",), ("why",), ("run", "x"), ("schema", "x"), ("audit", "show")])
def test_a_wrong_command_line_is_one_line(nyx, arguments):
    """Exit code 2."""
    done = nyx(*arguments)
    assert done.code == ExitCode.USAGE
    assert re.fullmatch(r"nyx: [^\n]+\(nyx --help\)\n", done.err)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("run", "--help")])
def test_help_is_no_error(nyx, arguments):
    """Exit code 0, and the usage on stdout."""
    done = nyx(*arguments)
    assert done.code == 0
    assert "Usage: nyx" in done.out


def test_schemas_are_valid_and_take_the_examples(nyx):
    """Both schemas are JSON Schema."""
    for name in ("policy", "manifest"):
        schema = json.loads(nyx("schema", name).out)
        jsonschema.Draft202012Validator.check_schema(schema)
