"""What a guard answers. Values only."""

from dataclasses import dataclass

from nyx_stream.policy import Credential, PathRule
from nyx_stream.policy.approval import Ticket

REPORT_ONLY = "report only: "
"""What the reason of a would-be denial begins with: it was allowed, and a rule in force would not have."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`rule` is the text of the rule that decided, `None` where no rule matched; `reason` says why, in words."""

    allowed: bool
    rule: str | None
    reason: str

    @property
    def reported(self) -> bool:
        """Whether this is a would-be denial: allowed, because the rule that speaks against it is on trial."""
        return self.allowed and self.reason.startswith(REPORT_ONLY)

    def taken(self) -> "Decision":
        """Returns the decision on doing now what was decided, once: what allowed it may be used up by that."""
        return self


@dataclass(frozen=True, slots=True)
class ApprovedDecision(Decision):
    """Allowed by a rule that was approved while the plugin ran, and by no other."""

    ticket: Ticket

    def taken(self) -> Decision:
        why = self.ticket.take()
        return self if why is None else Decision(False, self.rule, why)


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """A decision on a request and the canonical parts it was made on: what is sent is built from these alone.

    `host` is canonical (no brackets), `port` from 1 to 65535, `target` the normalised path with its query, as bytes
    fit for a request line. Where the URL could not be read, the parts are empty. `credentials` are those of the policy
    whose rules cover the request, at most one for each header.
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
    """A decision on a path by its text.

    `path` is absolute and lexically normal, `prefix` the rule that allows it, and `below` what to open below the
    prefix: the text as it was given there, so that the kernel resolves it physically.
    """

    decision: Decision
    path: str
    prefix: PathRule | None = None
    below: str = ""
