"""Opening on Windows: path text, comparison and calls, against a library that records them.

`test_windows_live` tests the real kernel32, on Windows.
"""

import ctypes
import errno
from typing import Any

import pytest

from nyx_core.beneath import windows
from nyx_core.beneath.errors import EscapesRoot, NotPlain
from nyx_core.windows.kernel32 import CREATE_NEW, FILE_SHARE_READ, FILE_SHARE_WRITE, Kernel32

ROOT = "\\\\?\\C:\\app"


class Function:
    """A recorded function of a library, with the attributes that ctypes functions have."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []
        self.argtypes: list[Any] = []
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        assert len(arguments) == len(self.argtypes)
        self.calls.append(arguments)
        return self.answer(*arguments)


class Library:
    """Opens every path of `leads_to` and reports the final path that the table says."""

    def __init__(self, leads_to: dict[str, str], kind: int = 1) -> None:
        self.open: dict[int, str] = {}
        self.leads_to = leads_to
        self.CreateFileW = Function(self._create)
        self.GetFinalPathNameByHandleW = Function(self._final)
        self.GetFileType = Function(lambda handle: kind)
        self.CloseHandle = Function(self._close)

    def __getattr__(self, name: str) -> Function:
        """The functions on jobs, which must not be called here."""
        return Function(lambda *_: pytest.fail(f"{name} was called"))

    def _create(self, path: str, *_: Any) -> int | None:
        if path not in self.leads_to:
            return ctypes.c_void_p(-1).value
        handle = 100 + len(self.CreateFileW.calls)
        self.open[handle] = self.leads_to[path]
        return handle

    def _final(self, handle: int, buffer: Any, size: int, flags: int) -> int:
        buffer.value = self.open[handle]
        return len(self.open[handle])

    def _close(self, handle: int) -> int:
        del self.open[handle]
        return 1


def root_over(library: Library) -> windows.WindowsRoot:
    return windows.WindowsRoot(Kernel32(library, lambda: 2), 7, ROOT)


@pytest.mark.parametrize(
    ("path", "names"),
    [("f", ["f"]), ("a\\b/c", ["a", "b", "c"]), ("a\\..\\f", ["f"]), (".", []), ("a/./b\\", ["a", "b"]), ("a/..", [])],
)
def test_names_from_the_root(path: str, names: list[str]) -> None:
    """Both separators split names, and `..` is removed lexically, as Win32 does."""
    assert windows.resolve(path) == names


@pytest.mark.parametrize(
    "path", ["..", "a\\..\\..\\f", "C:\\app\\f", "\\f", "/f", "\\\\server\\share", "C:f", "\\\\?\\C:\\x"]
)
def test_paths_that_lead_out(path: str) -> None:
    """A path above the root or an absolute path is an escape."""
    with pytest.raises(EscapesRoot):
        windows.resolve(path)


@pytest.mark.parametrize("path", ["CON", "a\\nul.txt", "COM\u00b9", "file::$DATA", "PROGRA~1\\f", "f.", "f ", "a*"])
def test_paths_that_win32_would_interpret(path: str) -> None:
    """Devices, streams, short names and stripped ends fail before anything is opened."""
    with pytest.raises(OSError, match=r"path|name") as caught:
        windows.resolve(path)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("final", "inside"),
    [(ROOT, ""), (ROOT + "\\", ""), (ROOT + "\\a\\f", "a\\f"), ("\\\\?\\c:\\APP\\a", "a")],
)
def test_below(final: str, inside: str) -> None:
    """Final paths are compared by components, ignoring case."""
    assert windows.below(ROOT, final) == inside


@pytest.mark.parametrize("final", ["\\\\?\\C:\\app2\\f", "\\\\?\\C:\\", "\\\\?\\D:\\app\\f", "\\\\?\\UNC\\s\\app\\f"])
def test_not_below(final: str) -> None:
    """A sibling, a parent, another drive and a server are not below."""
    with pytest.raises(EscapesRoot):
        windows.below(ROOT, final)


def test_what_leads_out_is_closed_again() -> None:
    """A link whose final path is outside is an escape. The judge isn't called, and no handle stays open."""
    library = Library({ROOT + "\\link": "\\\\?\\C:\\other\\secret"})
    with pytest.raises(EscapesRoot):
        windows.status(root_over(library), "link", lambda below, absolute: pytest.fail("called"))
    assert library.open == {}


def test_the_judge_sees_the_final_path() -> None:
    """The judge gets the final path, and its refusal closes the handle."""
    library = Library({ROOT + "\\link": ROOT + "\\Real\\f"})
    seen = []

    def judge(below: str, absolute: str) -> None:
        seen.append((below, absolute))
        raise PermissionError("refused")

    with pytest.raises(PermissionError, match="refused"):
        windows.open_file(root_over(library), "link", 0, judge=judge)
    assert seen == [("Real\\f", "C:\\app\\Real\\f")]
    assert library.open == {}


def test_a_device_is_refused() -> None:
    """Anything but a disk file raises NotPlain."""
    library = Library({ROOT + "\\pipe": ROOT + "\\pipe"}, kind=3)
    with pytest.raises(NotPlain):
        windows.open_file(root_over(library), "pipe", 0)
    assert library.open == {}


def test_nothing_is_shared_for_removal() -> None:
    """Every handle is opened verbatim, without FILE_SHARE_DELETE, and isn't inherited."""
    library = Library({ROOT: ROOT, ROOT + "\\a": ROOT + "\\a"})
    with pytest.raises(OSError, match="Win32 error 2"):
        windows.open_file(root_over(library), "a\\new", 0o101)
    for path, _, share, security, _, _, template in library.CreateFileW.calls:
        assert path.startswith("\\\\?\\")
        assert share == FILE_SHARE_READ | FILE_SHARE_WRITE
        assert security is None
        assert template is None
    assert library.open == {}


def test_creation_comes_after_the_comparison() -> None:
    """A file is created by CREATE_NEW in a directory that is held open and was compared."""
    library = Library({ROOT + "\\a": "\\\\?\\C:\\elsewhere"})
    with pytest.raises(EscapesRoot):
        windows.open_file(root_over(library), "a\\new", 0o301)
    assert all(call[4] != CREATE_NEW for call in library.CreateFileW.calls)
    assert library.open == {}


def test_signatures() -> None:
    """Handles are pointer-sized, and every call has a declared signature."""
    library = Library({})
    Kernel32(library, lambda: 0)
    assert library.CreateFileW.restype is ctypes.c_void_p
    assert [len(f.argtypes) for f in (library.CreateFileW, library.GetFinalPathNameByHandleW)] == [7, 4]
    for function in (library.GetFileType, library.CloseHandle):
        assert function.argtypes == [ctypes.c_void_p]
