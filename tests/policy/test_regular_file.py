"""Configuration is only read from regular files; any other file is an error without waiting."""

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
def test_a_file_that_is_not_regular_is_an_error_at_once(special: Path, read: Callable[[Path], object]) -> None:
    """The reader doesn't wait for a pipe's writer, and doesn't open a device."""
    with pytest.raises(NotRegular, match=r"not a regular file: .*plugin\.toml"):
        read(special)


def test_a_manifest_that_is_not_a_regular_file_is_a_manifest_error(special: Path) -> None:
    """The error says that the manifest can't be read."""
    with pytest.raises(ManifestError, match=r"plugin\.toml: cannot be read: not a regular file"):
        find(special.parent)


def test_a_pipe_that_replaces_a_file_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check after opening detects a replacement, and no descriptor stays open."""
    path, other = tmp_path / "policy.toml", tmp_path / "other.toml"
    other.write_text("")
    regular = other.stat()
    os.mkfifo(path)
    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda *_, **__: regular)
        with pytest.raises(NotRegular, match="not a regular file"):
            SandboxPolicy.from_toml(path)
    assert len(os.listdir("/dev/fd")) == before


def test_a_link_is_followed_if_links_are_allowed(tmp_path: Path) -> None:
    """Policies are often mounted through links. With `links=False` even a broken link is refused."""
    (tmp_path / "file").write_text("here")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "lost").symlink_to("nowhere")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"here"
    for name in ("link", "lost"):
        with pytest.raises(NotRegular):
            open_regular(tmp_path / name, links=False)


def test_a_file_that_is_too_large_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound applies to the bytes read, not to the size that the file reports."""
    monkeypatch.setattr(config_file, "MAX_FILE_SIZE", 10)
    (tmp_path / "policy.toml").write_text("# 123456789")
    with pytest.raises(PolicyError, match=r"policy\.toml: larger than 10 bytes"):
        SandboxPolicy.from_toml(tmp_path / "policy.toml")
