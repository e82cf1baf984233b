"""The secrets behind the credentials of a policy: read by the host, put below the plugin, kept out of what it sees.

Decides nothing: which credentials a request gets, the guard's verdict says. Nothing here prints a secret.
"""

import os
import re
import stat
from collections.abc import Sequence

from nyx_stream.attribution import as_host
from nyx_stream.capabilities.http.exchange import RawHeaders
from nyx_stream.policy import Credential

LONGEST = 16 * 1024
"""Bytes of a secret; a longer one is refused, as most servers refuse such a header."""

HIDDEN = b"[secret]"
"""What stands where a server sent a secret back."""

_SHORTEST_HIDDEN = 8
"""Bytes from which a secret is looked for in what a server sends; a shorter one would be found by chance."""

_sendable = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?").fullmatch


class Unresolved(Exception):
    """A secret cannot be had; the text names its source, its header, and why."""

    def __init__(self, item: Credential, why: str) -> None:
        super().__init__(f"the credential {item.header} cannot be had from {item.origin}: {why}")


class Keyring:
    """Reads secrets when they are needed. A variable is read each time, a file again when it was changed."""

    __slots__ = ("_files",)

    def __init__(self) -> None:
        self._files: dict[str, tuple[tuple[int, ...], bytes]] = {}

    def secret(self, item: Credential) -> bytes:
        """Returns the secret of a credential. Raises `Unresolved`."""
        if item.file is not None:
            found = self._from_file(item, item.file)
        else:
            variable = os.environ.get(item.variable or "")
            if variable is None:
                raise Unresolved(item, "the variable is not set")
            found = variable.encode("utf-8", "surrogateescape")
        if not _sendable(found) or len(found) > LONGEST:
            raise Unresolved(item, f"it is no printable ASCII text of 1 to {LONGEST} bytes")
        return found

    def _from_file(self, item: Credential, path: str) -> bytes:
        try:
            with as_host():
                # The host's own act, on a small local file: a second thread would cost more than the read.
                now = os.stat(path)
                version = (now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size)
                known = self._files.get(path)
                if known is not None and known[0] == version:
                    return known[1]
                found = _read(item, path)
        except OSError as error:
            raise Unresolved(item, error.strerror or type(error).__name__) from None
        self._files[path] = (version, found)
        return found


def add_credentials(headers: RawHeaders, credentials: Sequence[Credential], keyring: Keyring) -> tuple[bytes, ...]:
    """Puts each credential in the place of every header of its name; returns the secrets. Raises `Unresolved`."""
    secrets = [keyring.secret(item) for item in credentials]
    names = {_folded(item.header.encode("ascii")) for item in credentials}
    headers[:] = [(name, value) for name, value in headers if _folded(name) not in names]
    for item, secret in zip(credentials, secrets, strict=True):
        headers.append((item.header.encode("ascii"), item.prefix.encode("ascii") + secret))
    return tuple(secret for secret in secrets if len(secret) >= _SHORTEST_HIDDEN)


def conceal(text: bytes, secrets: Sequence[bytes]) -> bytes:
    """Returns what a server sent without the secrets that were sent to it."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def conceal_error(error: BaseException, secrets: Sequence[bytes]) -> None:
    """Takes secrets out of the texts of an error and its causes: a protocol error quotes what the server sent."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.args = tuple(_concealed(value, secrets) for value in link.args)
        link = link.__cause__ or link.__context__


def _folded(name: bytes) -> bytes:
    # Servers that keep headers as variables take `X_Key` for `X-Key` (RFC 3875, section 4.1.18).
    return name.lower().replace(b"_", b"-")


def _concealed(value: object, secrets: Sequence[bytes]) -> object:
    if not isinstance(value, str):
        return value
    for secret in secrets:
        for text in (secret.decode("ascii"), repr(secret)[2:-1]):
            value = value.replace(text, HIDDEN.decode("ascii"))
    return value


def _read(item: Credential, path: str) -> bytes:
    # Opened without waiting: a pipe that nobody writes must not hold up the event loop.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unresolved(item, "it is no regular file")
        found = os.read(descriptor, LONGEST + 2)
    finally:
        os.close(descriptor)
    return found.rstrip(b"\r\n")
