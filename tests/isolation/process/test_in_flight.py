"""The kernel's bound on descriptors in flight is one for all workers of a user: reaching it ends none of them."""

import json
import subprocess
import sys

from tests.isolation.process.in_flight import OTHERS
from tests.plugin_fixtures import write_plugin

CODE = """
    class Main(Plugin):
        @export
        async def read(self) -> list[object]:
            try:
                async with self.files.open("file", "a+") as file:
                    return ["read", file.name is not None]
            except OSError as error:
                return [error.errno, error.strerror]
        @export
        async def echo(self) -> str: return "echo"
    """
ETOOMANYREFS = 109


def test_a_request_beyond_the_bound_fails_alone(tmp_path):
    """With an error of its own, at once or from the queue; what needs no descriptor goes on; afterwards all is well."""
    write_plugin(tmp_path / "one", CODE, permissions='write = ["$DATA"]')
    for name in OTHERS:
        write_plugin(tmp_path / name, CODE)
    command = [sys.executable, "-m", "tests.isolation.process.in_flight", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    refused = [ETOOMANYREFS, "too many descriptors are on their way to processes of this user that do not take them: "]
    for moment in ("at once", "queued"):
        number, text = told.pop(moment)
        assert (number, text[: len(refused[1])]) == tuple(refused), moment
    assert told.pop("another").startswith("PluginLoadError")
    assert told == {
        "before": ["read", True],
        "without": "echo",
        "after": ["read", True],
        "another after": "echo",
        "the same life": "running",
    }
