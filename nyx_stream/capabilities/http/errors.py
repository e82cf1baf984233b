"""How the inner parts of the guarded client say no. The client turns each into an error of the library it extends.

They are no httpcore2 errors: those stand for faults of the network, and a retry would be of no use here.
"""

from nyx_stream.guard import Decision


class RequestRefused(Exception):
    """The guard, or the client itself, decided against something that a request led to."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision


class Exceeded(Exception):
    """A limit of the grant was reached: its name, its value, and what went beyond it."""

    def __init__(self, limit: str, allowed: int, detail: str) -> None:
        super().__init__(detail)
        self.limit = limit
        self.allowed = allowed
        self.detail = detail


def refusal(reason: str) -> Decision:
    """A decision of the client itself, where no rule of a policy could allow it."""
    return Decision(False, None, reason)
