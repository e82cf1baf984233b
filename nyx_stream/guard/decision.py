"""The values that a guard returns."""

from dataclasses import dataclass

from nyx_stream.policy import Credential, PathRule
from nyx_stream.policy.approval import Ticket

REPORT_ONLY = "report only: "
"""The prefix of the reason of a would-be denial."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`rule` is the text of the rule that decided, or `None` if no rule matched; `reason` says why, in words."""

    allowed: bool
    rule: str | None
    reason: str

    @property
    def reported(self) -> bool:
        """Whether this is a would-be denial: allowed only because the rule that speaks against it is report-only."""
        return self.allowed and self.reason.startswith(REPORT_ONLY)

    def use(self) -> "Decision":
        """Returns the decision on performing the operation now, once. That may use up a one-time approval."""
        return self


OUTSIDE = Decision(False, None, "outside the narrowed grant")
"""The decision of a narrowed guard on a target that only the guard it narrows allows."""


@dataclass(frozen=True, slots=True)
class ApprovedDecision(Decision):
    """Allowed only by a rule that was approved while the plugin runs."""

    ticket: Ticket

    def use(self) -> Decision:
        reason = self.ticket.use()
        return self if reason is None else Decision(False, self.rule, reason)


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """A decision on a request, and the canonical parts it was made on. Build the request from these parts alone.

    Attributes:
        host: canonical, without brackets; empty, like the other parts, if the URL could not be read.
        port: from 1 to 65535.
        target: the normalised path and the query, as bytes for a request line.
        credentials: those of the policy whose rules cover the request, at most one for each header.
    """

    decision: Decision
    method: str
    scheme: str = ""
    host: str = ""
    port: int = 0
    target: bytes = b""
    credentials: tuple[Credential, ...] = ()


@dataclass(frozen=True, slots=True)
class PathVerdict:
    """A decision on the text of a path.

    Attributes:
        path: absolute and lexically normal.
        prefix: the rule that allows it, or `None`.
        below: what to open below the prefix: the text as it was given, so that the kernel resolves it physically.
    """

    decision: Decision
    path: str
    prefix: PathRule | None = None
    below: str = ""
