r"""Path text: normal forms and comparison of paths, without access to a file system.

Three flavours, usable on every platform:

- `posix`: names are bytes that compare exactly; `//` means `/`.
- `macos`: like `posix`, but APFS ignores the normalisation form and, by default, case.
- `windows`: `/` and `\` are both separators, and case is ignored. Texts that Win32 treats specially (devices, streams,
  short names, stripped dots) are refused, because the text doesn't show what they open.
  Source: "Naming Files, Paths, and Namespaces", Microsoft.

Call `refuse_reason` first, then `is_absolute` (the caller joins a relative path to its base), then `normalise`, then
`fold` on both sides of a comparison.
"""

import re
import sys
import unicodedata
from typing import Literal

Flavour = Literal["posix", "macos", "windows"]

NATIVE: Flavour = "windows" if sys.platform == "win32" else "macos" if sys.platform == "darwin" else "posix"
"""The flavour of the running platform."""

_DEVICE = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9¹²³])", re.IGNORECASE)
# An 8.3 alias such as PROGRA~1.TXT can stand for any long name, so a rule can't match its text.
_SHORT = re.compile(r"[^.~]{1,6}~[0-9]{1,6}(?:\.[^.]{0,3})?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f<>"|?*]')
_DRIVE = re.compile(r"[A-Za-z]:")


def is_absolute(path: str, flavour: Flavour = NATIVE) -> bool:
    r"""Whether `path` is independent of the working directory: `/a`; `C:\a` but not `C:a` or `\a`."""
    if flavour != "windows":
        return path.startswith("/")
    return _DRIVE.match(path) is not None and path[2:3] in ("\\", "/")


def components(path: str, flavour: Flavour = NATIVE) -> tuple[str, ...]:
    r"""The names between the separators, without empty ones and `.`; `..` stays. `C:\a` is `("C:", "a")`."""
    if flavour == "windows":
        path = path.replace("\\", "/")
    return tuple([name for name in path.split("/") if name and name != "."])


def normalise(path: str, flavour: Flavour = NATIVE) -> str:
    r"""The lexical normal form of an absolute path: single separators, no `.` or `..`, no separator at the end.

    `..` at the root stays at the root, as in the kernel. The drive letter becomes upper case.

    Raises:
        ValueError: `path` is not absolute.
    """
    if not is_absolute(path, flavour):
        raise ValueError(f"cannot normalise {path!r}: the path must be absolute")
    # Nearly every path is normal already, and these searches cost less than splitting it.
    if flavour != "windows" and "//" not in path and "/." not in path and (path[-1] != "/" or path == "/"):
        return path
    names = components(path, flavour)
    kept: list[str] = []
    for name in names[1:] if flavour == "windows" else names:
        if name != "..":
            kept.append(name)
        elif kept:
            kept.pop()
    if flavour == "windows":
        return f"{names[0].upper()}\\" + "\\".join(kept)
    return "/" + "/".join(kept)


def fold(text: str, flavour: Flavour = NATIVE) -> str:
    """A key that is equal for all spellings of a name. For comparison only, not for display.

    `windows` maps characters to upper case one by one, as NTFS does with its $UpCase table (`ß` stays). `macos` folds
    case and normalisation form. On a case-sensitive volume that makes two names equal, which affects only the matching
    of rules: files are opened below a directory that is held open.
    """
    if flavour == "posix":
        return text
    if flavour == "windows":
        return text.upper() if text.isascii() else "".join(map(_upper, text))
    return text.lower() if text.isascii() else _caseless(text)


def refuse_reason(path: str, flavour: Flavour = NATIVE) -> str | None:
    """Why no rule can decide on this path, absolute or relative, or `None` if one can."""
    if not path:
        return "the path is empty"
    if "\0" in path:
        return "the path contains a NUL character"
    if not path.isascii() and not _encodable(path, flavour):
        return "the path cannot be encoded as a file name"
    return _windows_reason(path) if flavour == "windows" else None


def _windows_reason(path: str) -> str | None:
    text = path.replace("\\", "/")
    if text.startswith("//"):
        return "UNC, device and verbatim paths can't be matched by rules"
    if text.startswith("/"):
        return "the path is relative to the current drive"
    if _DRIVE.match(text):
        if text[2:3] != "/":
            return "the path is relative to the current directory of a drive"
        text = text[3:]
    for name in text.split("/"):
        if (reason := _windows_name_reason(name)) is not None:
            return reason
    return None


def _windows_name_reason(name: str) -> str | None:
    if name in ("", ".", ".."):
        return None
    if ":" in name:
        return "the path names an alternate data stream"
    if _FORBIDDEN.search(name):
        return "the path contains a character that Windows doesn't allow in file names"
    if name[-1] in ". ":
        return "Windows drops the trailing dot or space of a name"
    # Win32 compares the part before the first dot, without trailing spaces: "nul .txt" is the device.
    if _DEVICE.fullmatch(name.split(".", 1)[0].rstrip(" ")):
        return "the path names a device"
    if _SHORT.fullmatch(name):
        return "the path contains a short (8.3) name, which doesn't show the long name"
    return None


def _upper(character: str) -> str:
    upper = character.upper()
    # The dotless i and the long s have ASCII capitals in Unicode but not in $UpCase.
    if len(upper) != 1 or (upper.isascii() and not character.isascii()):
        return character
    return upper


def _caseless(text: str) -> str:
    # Canonical caseless matching, Unicode 3.13 D145: decomposed before and after the folding.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def _encodable(path: str, flavour: Flavour) -> bool:
    codec, errors = ("utf-16-le", "strict") if flavour == "windows" else ("utf-8", "surrogateescape")
    try:
        path.encode(codec, errors)
    except UnicodeEncodeError:
        return False
    return True
