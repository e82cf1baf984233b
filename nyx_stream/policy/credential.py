"""Credentials bound to request rules: where a secret comes from, and which requests get it. Never holds the secret."""

import re
from dataclasses import dataclass, field

from nyx_core.beneath.text import is_absolute, refuse_reason
from nyx_stream.policy.rules import RequestRule, RuleError, Source, parse_env

_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_PREFIX = re.compile(r"(?:[\x21-\x7e][\x20-\x7e]{0,63})?")

_RESERVED_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
     "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
"""Headers that frame a message or belong to its connection: a secret there would change what is sent."""


@dataclass(frozen=True)
class Credential:
    """A header that the host adds, below the plugin, to the requests that `rule` covers. It grants no request.

    `origin` is `"env:NAME"` or `"file:/PATH"`: where the host reads the secret when it is needed. The header's value is
    `prefix` followed by the secret.
    """

    rule: RequestRule
    header: str
    origin: str
    prefix: str = ""
    source: Source | None = field(default=None, compare=False)

    @property
    def variable(self) -> str | None:
        """The environment variable that holds the secret, or `None`."""
        return self.origin.removeprefix("env:") if self.origin.startswith("env:") else None

    @property
    def file(self) -> str | None:
        """The absolute path of the file that holds the secret, or `None`."""
        return self.origin.removeprefix("file:") if self.origin.startswith("file:") else None

    @property
    def text(self) -> str:
        """The credential without the secret: its header, origin and rule."""
        return f"{self.header} from {self.origin} for {self.rule.text}"


def parse_bound_rule(text: str, source: Source | None = None) -> RequestRule:
    """Parses a rule to which a credential can be bound. Raises `RuleError`."""
    rule = RequestRule.parse(text, source)
    if rule.scheme not in ("http", "https"):
        raise RuleError(text, "a credential can only be bound to requests over http or https")
    return rule


def parse_header(name: str, source: Source | None = None) -> str:  # noqa: ARG001  # the signature of every parser
    """Returns the name of a header that may carry a credential. Raises `RuleError`."""
    if not _HEADER.fullmatch(name):
        raise RuleError(name, "a header name is a token of RFC 9110, of at most 64 characters")
    if name.lower() in _RESERVED_HEADERS:
        raise RuleError(name, f"the header {name} belongs to the connection or the body: it can't carry a credential")
    return name


def parse_origin(value: str, source: Source | None = None) -> str:  # noqa: ARG001
    """Returns where a secret comes from. Raises `RuleError` without `value`, which may be a secret by mistake."""
    kind, colon, path = value.partition(":")
    if colon and kind == "env":
        try:
            parse_env(path)
        except RuleError as error:
            raise RuleError("", f"value: {error.reason}") from None
        return value
    if not colon or kind != "file":
        reason = 'value must say where the secret is, "env:NAME" or "file:/PATH"; don\'t write the secret into a policy'
        raise RuleError("", reason)
    if not (is_absolute(path, "posix") or is_absolute(path, "windows")) or refuse_reason(path, "posix"):
        raise RuleError("", "value: the path of a secret's file must be absolute")
    return value


def parse_prefix(prefix: str, source: Source | None = None) -> str:  # noqa: ARG001
    """Returns the text before a secret, such as `"Bearer "`. Raises `RuleError`."""
    if not _PREFIX.fullmatch(prefix):
        raise RuleError("", "a prefix has up to 64 printable ASCII characters, such as 'Bearer '")
    return prefix
