"""What a file is read from: a regular file, or an error at once, whatever stands at its path."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nyx_stream.audit.chain import read_key
from nyx_stream.errors import ManifestError, PolicyError
from nyx_stream.host import find
from nyx_stream.host.config import read_config
from nyx_stream.plugin_sandbox import SandboxPolicy
from nyx_stream.policy import config_file
from nyx_stream.policy.manifest import Manifest
from nyx_stream.regular_file import NotRegular, open_regular
from tests.policy.special import SPECIAL

READERS: list[Callable[[Path], object]] = [SandboxPolicy.from_toml, Manifest.from_toml, read_config, read_key]


@pytest.fixture(params=SPECIAL)
def special(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "plugin.toml"
    SPECIAL[request.param](path)
    return path


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__qualname__)
def test_what_is_no_regular_file_is_an_error_at_once(special: Path, read: Callable[[Path], object]) -> None:
    """Nobody waits for a pipe's writer, and a device is not opened."""
    with pytest.raises(NotRegular, match=r"is no regular file: .*plugin\.toml"):
        read(special)


def test_a_plugin_without_a_regular_manifest_is_a_clear_error(special: Path) -> None:
    """As every manifest that cannot be read."""
    with pytest.raises(ManifestError, match=r"plugin\.toml: cannot be read: is no regular file"):
        find(special.parent)


def test_a_pipe_that_takes_the_place_of_a_file_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the name and the opening; nothing stays open."""
    path, other = tmp_path / "policy.toml", tmp_path / "other.toml"
    other.write_text("")
    looked_at = other.stat()
    os.mkfifo(path)
    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda *_, **__: looked_at)
        with pytest.raises(NotRegular, match="is no regular file"):
            SandboxPolicy.from_toml(path)
    assert len(os.listdir("/dev/fd")) == before


def test_a_link_is_followed_where_it_may_be(tmp_path: Path) -> None:
    """Policies are often mounted through links; where none may be, also one that leads nowhere is refused."""
    (tmp_path / "file").write_text("here")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nowhere")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"here"
    for name in ("link", "lost"):
        with pytest.raises(NotRegular):
            open_regular(tmp_path / name, links=False)


def test_a_file_that_is_too_large_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever size it says that it has."""
    monkeypatch.setattr(config_file, "LARGEST", 10)
    (tmp_path / "policy.toml").write_text("# 123456789")
    with pytest.raises(PolicyError, match=r"policy\.toml: larger than 10 bytes"):
        SandboxPolicy.from_toml(tmp_path / "policy.toml")
