"""Credentials bound to request rules: where a secret comes from and which requests get it. Never holds the secret."""

import re
from dataclasses import dataclass, field
from typing import Self

from nyx_core.beneath.text import is_absolute, refuse_reason
from nyx_stream.policy.request_rule import RequestRule
from nyx_stream.policy.rule import RuleError, Source, parse_env

_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_PREFIX = re.compile(r"(?:[\x21-\x7e][\x20-\x7e]{0,63})?")

_CONNECTION = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
     "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
"""Headers that frame a message or belong to its connection: a secret there would change what is sent."""


@dataclass(frozen=True)
class Credential:
    """A header that the host adds, below the plugin, to the requests that `rule` covers; it grants none of them.

    `origin` is `"env:NAME"` or `"file:/PATH"`: where the host takes the secret from, when it is needed. What is sent
    is `prefix` and the secret.
    """

    rule: RequestRule
    header: str
    origin: str
    prefix: str = ""
    source: Source | None = field(default=None, compare=False)

    @property
    def variable(self) -> str | None:
        """The environment variable that holds the secret, or `None`."""
        kind, _, place = self.origin.partition(":")
        return place if kind == "env" else None

    @property
    def file(self) -> str | None:
        """The absolute path of the file that holds the secret, or `None`."""
        kind, _, place = self.origin.partition(":")
        return place if kind == "file" else None

    @property
    def text(self) -> str:
        """What the credential is, without the secret: its header, source and rule."""
        return f"{self.header} from {self.origin} for {self.rule.text}"

    @classmethod
    def of(cls, rule: RequestRule, header: str, value: str, prefix: str = "", source: Source | None = None) -> Self:
        """Makes a credential of its parts. Raises `RuleError`, whose text never has the value in it."""
        check_rule(rule)
        return cls(rule, parse_header(header), parse_origin(value), parse_prefix(prefix), source)


def check_rule(rule: RequestRule) -> None:
    """Raises `RuleError` for a rule that no credential can be bound to."""
    if rule.scheme not in ("http", "https"):
        raise RuleError(rule.text, "a credential goes with requests over http or https")


def parse_header(name: str, source: Source | None = None) -> str:  # noqa: ARG001  # the signature of every parser
    """Returns the name of a header that may carry a credential; raises `RuleError`."""
    if not _HEADER.fullmatch(name):
        raise RuleError(name, "the name of a header is a token of RFC 9110, of 64 characters at most")
    if name.lower() in _CONNECTION:
        raise RuleError(name, f"the header {name} belongs to the connection or the body: it carries no credential")
    return name


def parse_origin(value: str, source: Source | None = None) -> str:  # noqa: ARG001
    """Returns where a secret comes from; raises `RuleError` without `value`, which may be a secret by mistake."""
    kind, colon, place = value.partition(":")
    if colon and kind == "env":
        try:
            parse_env(place)
        except RuleError as error:
            raise RuleError("", f"value: {error.reason}") from None
        return value
    if colon and kind == "file":
        if not (is_absolute(place, "posix") or is_absolute(place, "windows")) or refuse_reason(place, "posix"):
            raise RuleError("", "value: the path of a secret's file is absolute")
        return value
    raise RuleError("", 'a value says where the secret is, "env:NAME" or "file:/PATH"; the secret stands in no policy')


def parse_prefix(prefix: str, source: Source | None = None) -> str:  # noqa: ARG001
    """Returns what stands before a secret, such as `"Bearer "`; raises `RuleError`."""
    if not _PREFIX.fullmatch(prefix):
        raise RuleError("", "a prefix is up to 64 printable ASCII characters, such as 'Bearer '")
    return prefix
