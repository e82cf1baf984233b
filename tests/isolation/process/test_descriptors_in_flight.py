"""The kernel limits descriptors in flight for all workers of a user together: reaching that limit ends no worker."""

import json
import subprocess
import sys

from tests.host.plugin_folder import write_plugin
from tests.isolation.process.descriptors_in_flight import OTHERS

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


def test_a_request_beyond_the_limit_fails_alone(tmp_path):
    """It gets its own error, at once or from the queue; other calls work, and afterwards all do."""
    write_plugin(tmp_path / "one", CODE, permissions='write = ["$DATA"]')
    for name in OTHERS:
        write_plugin(tmp_path / name, CODE)
    command = [sys.executable, "-m", "tests.isolation.process.descriptors_in_flight", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    refused = [ETOOMANYREFS, "too many descriptors are in transit to processes of this user that do not receive them: "]
    for moment in ("at once", "queued"):
        number, text = answers.pop(moment)
        assert (number, text[: len(refused[1])]) == tuple(refused), moment
    assert answers.pop("another").startswith("PluginLoadError")
    assert answers == {
        "before": ["read", True],
        "without": "echo",
        "after": ["read", True],
        "another after": "echo",
        "the same run": "running",
    }
