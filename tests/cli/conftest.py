"""Runs commands in this process, and provides a small plugin."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nyx_stream.cli import main


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Nyx = Callable[..., Outcome]


@pytest.fixture
def nyx(capfd: pytest.CaptureFixture[str]) -> Nyx:
    """Runs a command and returns its exit code and output."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


MANIFEST = """\
id = "weather"
version = "1.2.0"
entry = "weather:Weather"
[permissions]
request = ["GET https://api.met.no/**"]
connect = ["[::1]:8080"]
read = ["./data", "/usr/share/zoneinfo"]
write = ["$DATA"]
env = ["TZ", "LANG"]
[permissions.why]
request = "reads forecasts"
[limits]
call_timeout = "5s"
"""

POLICY = """\
[allow]
request = ["GET https://api.met.no/v1/**"]
connect = ["[::1]:8080"]
write = ["$DATA"]
env = ["TZ"]
[deny]
connect = ["10.0.0.0/8"]
path = ["$DATA/secret"]
"""

CODE = """\
from nyx_stream import Plugin, export
from nyx_stream.errors import LimitExceeded


class Weather(Plugin):
    @export
    async def forecast(self, city: str) -> dict[str, str]:
        await self.files.write_text("last.txt", city)
        return {"city": city, "zone": self.env.get("TZ", "none")}

    @export
    async def fetch(self) -> str:
        return (await self.http.get("https://api.met.no/v2/x")).text

    @export
    async def echo(self, **values: object) -> list[str]:
        return [f"{name}:{type(value).__name__}" for name, value in sorted(values.items())]

    @export
    async def count(self, to: int):
        for number in range(to):
            yield number

    @export
    async def fail(self):
        raise ValueError("on\\npurpose")
"""


@dataclass(frozen=True)
class Case:
    """A plugin folder and a policy file."""

    plugin: Path
    policy: Path
    data: Path

    def write(self, name: str, text: str) -> Path:
        """Writes a file into the plugin's folder."""
        path = self.plugin / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def options(self) -> tuple[Any, ...]:
        """Options that most commands take."""
        return ("--policy", self.policy, "--data-dir", self.data)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A plugin that requests permissions of each kind, and a policy that grants some of them."""
    case = Case(tmp_path / "weather", tmp_path / "policy.toml", tmp_path / "data")
    case.plugin.mkdir()
    case.policy.write_text(POLICY, encoding="utf-8")
    case.write("plugin.toml", MANIFEST)
    case.write("weather.py", CODE)
    return case
