"""What a plan says of optional permissions: those not granted from the start, and what each would take."""

from nyx_stream.host.approvals.store import denied_by, on_request
from nyx_stream.policy.approval import OptionalPermission
from nyx_stream.policy.grant import Grant, GrantRow


def to_be_asked(grant: Grant) -> list[tuple[GrantRow, str]]:
    """Returns the rows that the plugin may ask for while it runs, each with when it would get it."""
    return [(row, _when(grant, row)) for row in grant.rows() if row.optional and row.status != "granted"]


def _when(grant: Grant, row: GrantRow) -> str:
    if row.kind == "env" or row.rule is None:
        return "never"
    if (denied := denied_by(grant.policy, row.kind, row.rule)) is not None:
        return f"never: {denied}"
    given = on_request(grant.policy, OptionalPermission(row.kind, row.rule), grant.places)
    if given is not None:
        return f"as soon as it asks ({given.source or given.text})"
    return "if it asks and the host's approver says yes"
