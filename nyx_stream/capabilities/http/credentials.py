"""Secrets behind the credentials of a policy: read by the host, added to requests, and hidden from the plugin.

The guard's verdict says which credentials a request gets. Nothing here prints a secret.
"""

import os
import re
import stat
from collections.abc import Sequence

from nyx_stream.attribution import as_host
from nyx_stream.capabilities.http.exchange import RequestRefused
from nyx_stream.capabilities.http.service import RawHeaders
from nyx_stream.policy import Credential

MAX_SECRET = 16 * 1024
"""Bytes of a secret; a longer one is refused, as most servers refuse such a header."""

HIDDEN = b"[secret]"
"""Replaces a secret that a server sent back."""

_MIN_HIDDEN = 8
"""Bytes of the shortest secret that is searched for in responses; a shorter one would be found by chance."""

_sendable = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?").fullmatch


class Unresolved(RequestRefused):
    """A secret cannot be read; the text names its source, its header, and why."""

    def __init__(self, item: Credential, why: str) -> None:
        super().__init__(f"cannot read the credential {item.header} from {item.origin}: {why}")


class Keyring:
    """Reads secrets when they are needed: a variable each time, a file again whenever it has changed."""

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
        if not _sendable(found) or len(found) > MAX_SECRET:
            raise Unresolved(item, f"expected printable ASCII text of 1 to {MAX_SECRET} bytes")
        return found

    def _from_file(self, item: Credential, path: str) -> bytes:
        try:
            with as_host():
                # A small local file: a thread would cost more than the read.
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
    """Replaces each header that a credential names; returns the secrets to hide. Raises `Unresolved`."""
    secrets = [keyring.secret(item) for item in credentials]
    names = {_folded(item.header.encode("ascii")) for item in credentials}
    headers[:] = [(name, value) for name, value in headers if _folded(name) not in names]
    for item, secret in zip(credentials, secrets, strict=True):
        headers.append((item.header.encode("ascii"), item.prefix.encode("ascii") + secret))
    return tuple(secret for secret in secrets if len(secret) >= _MIN_HIDDEN)


def conceal(text: bytes, secrets: Sequence[bytes]) -> bytes:
    """Returns `text` with each secret replaced."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def conceal_error(error: BaseException, secrets: Sequence[bytes]) -> None:
    """Replaces secrets in the texts of an error and its causes: a protocol error quotes what the server sent."""
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
    # O_NONBLOCK: opening a FIFO without a writer must not block the event loop.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unresolved(item, "expected a regular file")
        found = os.read(descriptor, MAX_SECRET + 2)
    finally:
        os.close(descriptor)
    return found.rstrip(b"\r\n")
