"""Path text in its three flavours gives the same results on every platform."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nyx_core.beneath.text import Flavour, components, fold, is_absolute, normalise, refuse_reason

PATHS = st.text(alphabet=st.sampled_from(["a", "B", ".", "/", "\\", "é", "e", "\u0301", ":", "~", "1"]), max_size=24)
FLAVOURS: list[Flavour] = ["posix", "macos", "windows"]


@pytest.mark.parametrize(
    ("path", "flavour", "wanted"),
    [
        ("/", "posix", "/"),
        ("//data/app/x", "posix", "/data/app/x"),
        ("/data/app/../app2/x", "posix", "/data/app2/x"),
        ("/data/./app//x/", "posix", "/data/app/x"),
        ("/../..", "posix", "/"),
        ("/a/.hidden/..b", "posix", "/a/.hidden/..b"),
        ("/a\\..\\b", "posix", "/a\\..\\b"),
        ("c:/a\\b/../c", "windows", "C:\\a\\c"),
        ("C:\\", "windows", "C:\\"),
        ("C:\\..\\..\\x", "windows", "C:\\x"),
    ],
)
def test_normal_form(path: str, flavour: Flavour, wanted: str) -> None:
    """The normal form removes redundant parts, and `..` at the root stays at the root."""
    assert normalise(path, flavour) == wanted


@pytest.mark.parametrize(
    ("path", "flavour"), [("a/b", "posix"), ("C:a", "windows"), ("\\a", "windows"), ("/a", "windows")]
)
def test_normal_form_needs_an_absolute_path(path: str, flavour: Flavour) -> None:
    """A path that depends on a working directory has no normal form."""
    assert not is_absolute(path, flavour)
    with pytest.raises(ValueError, match="absolute"):
        normalise(path, flavour)


@pytest.mark.parametrize(
    "path",
    [
        "CON", "nul.txt", "NUL .txt", "COM1", "com1.log", "COM\u00b9", "lpt\u00b3.x", "conout$", "a/aux/b",
        "C:\\x\\prn", "f::$DATA", "f:stream", "a/f:s:$DATA", "C:rel", "C:",
        "\\\\?\\C:\\x", "\\\\.\\PhysicalDrive0", "//server/share",
        "\\\\server\\share\\x", "\\/server/share", "\\x", "/x", "PROGRA~1", "a\\LONGNA~2.TXT\\b", "GIT~1",
        "x.", "x ", "a. /b", "...", "a/ /b", "a*", "a?b", "a|b", "a<b", 'a"b', "a\x1fb", "", "a\0b", "\ud800",
    ],
)  # fmt: skip
def test_windows_paths_with_special_meaning_are_refused(path: str) -> None:
    """Devices, streams, short names, stripped ends, UNC and drive-relative paths are refused."""
    assert refuse_reason(path, "windows")


@pytest.mark.parametrize(
    "path",
    [
        "console",
        "nullable.txt",
        "COM10",
        "com",
        "a\\b/c",
        "C:\\x",
        "c:/x",
        "..\\a",
        ".\\.hidden",
        "note~",
        "LPT",
    ],
)
def test_plain_windows_paths_are_accepted(path: str) -> None:
    """Names that only resemble those are accepted."""
    assert refuse_reason(path, "windows") is None


@pytest.mark.parametrize("flavour", ["posix", "macos"])
def test_posix_refuses_only_what_is_not_a_file_name(flavour: Flavour) -> None:
    """POSIX accepts every name that isn't empty, has no NUL and can be encoded."""
    assert refuse_reason("", flavour)
    assert refuse_reason("f\0g", flavour)
    assert refuse_reason("\ud800", flavour)
    assert refuse_reason("\udcff", flavour) is None
    assert refuse_reason("CON:x*. ", flavour) is None


def test_comparison_by_flavour() -> None:
    """Windows and macOS treat certain spellings as equal that POSIX distinguishes, and no others."""
    assert fold("/data/APP", "posix") != fold("/data/app", "posix")
    assert fold("C:\\Über", "windows") == fold("C:\\üBER", "windows")
    assert fold("straße", "windows") != fold("STRASSE", "windows")
    assert fold("ſ", "windows") != fold("S", "windows")
    assert fold("caf\u00e9", "macos") == fold("CAFE\u0301", "macos")
    assert fold("caf\u00e9", "posix") != fold("cafe\u0301", "posix")


def test_components_keep_the_steps_up() -> None:
    """Empty components and `.` are removed; `..` is kept for the resolver."""
    assert components("./b//c/./../file/", "posix") == ("b", "c", "..", "file")
    assert components("C:\\a/b", "windows") == ("C:", "a", "b")


@given(PATHS, st.sampled_from(FLAVOURS))
def test_laws(path: str, flavour: Flavour) -> None:
    """Normalising twice changes nothing and leaves no dot segment. Folding is idempotent."""
    absolute = ("C:/" if flavour == "windows" else "/") + path
    normal = normalise(absolute, flavour)
    assert normalise(normal, flavour) == normal
    assert not {".", ".."} & set(components(normal, flavour))
    assert fold(fold(normal, flavour), flavour) == fold(normal, flavour)
