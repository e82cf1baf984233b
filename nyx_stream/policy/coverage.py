"""How two rules relate: whether one covers all targets of the other, or some of them.

`covers` never returns true wrongly, `overlaps` never returns false wrongly. Both are cautious between path patterns
with several wildcards: a plan may say "partly" where a person would say "granted", but never the reverse.
"""

from nyx_core.beneath.text import NATIVE
from nyx_stream.policy.hosts import address_number
from nyx_stream.policy.rules import ConnectRule, PathRule, RequestRule, Rule, path_key
from nyx_stream.policy.url_path import PathPattern


def covers(wide: Rule, narrow: Rule) -> bool:
    """Returns whether `wide` allows everything that `narrow` does. A connect rule allows every http(s) request."""
    match wide, narrow:
        case ConnectRule(), ConnectRule():
            return wide.port in (None, narrow.port) and _endpoint_covers(wide, narrow)
        case ConnectRule(), RequestRule(scheme="http" | "https"):
            return covers(wide, ConnectRule.of(narrow))
        case RequestRule(), RequestRule():
            return (
                (wide.scheme, wide.port) == (narrow.scheme, narrow.port)
                and _host_covers(wide, narrow)
                and narrow.allowed_methods <= wide.allowed_methods
                and _path_covers(wide.path, narrow.path)
            )
        case PathRule(), PathRule():
            return (wide.mode == "rw" or narrow.mode == "r") and _is_below(narrow, wide)
    return False


def overlaps(one: Rule, other: Rule) -> bool:
    """Returns whether both rules may cover some target. For paths, whether both may cover reading some path."""
    match one, other:
        case RequestRule(), ConnectRule():
            return overlaps(other, one)
        case ConnectRule(), ConnectRule():
            same_port = one.port is None or other.port in (None, one.port)
            return same_port and (_endpoint_covers(one, other) or _endpoint_covers(other, one))
        case ConnectRule(), RequestRule(scheme="http" | "https"):
            return overlaps(one, ConnectRule.of(other))
        case RequestRule(), RequestRule():
            return (
                (one.scheme, one.port) == (other.scheme, other.port)
                and (_host_covers(one, other) or _host_covers(other, one))
                and (one.methods is None or other.methods is None or bool(one.methods & other.methods))
                and _paths_overlap(one.path, other.path)
            )
        case PathRule(), PathRule():
            return _is_below(one, other) or _is_below(other, one)
    return False


def _endpoint_covers(wide: ConnectRule, narrow: ConnectRule) -> bool:
    if wide.length is None and narrow.length is None:
        return _host_covers(wide, narrow)
    if wide.length is None or narrow.length is None or wide.length > narrow.length:
        return False
    (wide_version, wide_number), (version, number) = address_number(wide.host), address_number(narrow.host)
    shift = (32 if version == 4 else 128) - wide.length
    return wide_version == version and wide_number >> shift == number >> shift


def _host_covers(wide: ConnectRule | RequestRule, narrow: ConnectRule | RequestRule) -> bool:
    if wide.wildcard:
        return narrow.host.endswith("." + wide.host) or (narrow.wildcard and narrow.host == wide.host)
    return not narrow.wildcard and narrow.host == wide.host


def _path_covers(wide: PathPattern | None, narrow: PathPattern | None) -> bool:
    if wide is None or wide == narrow:
        return True
    if narrow is None:
        return False
    if narrow.exact:
        return wide.matches(narrow.text)
    return wide.subtree and narrow.literal.startswith(wide.literal)


def _paths_overlap(one: PathPattern | None, other: PathPattern | None) -> bool:
    if one is None or other is None:
        return True
    if one.exact or other.exact:
        exact, pattern = (one, other) if one.exact else (other, one)
        return pattern.matches(exact.text)
    return one.literal.startswith(other.literal) or other.literal.startswith(one.literal)


def _is_below(inner: PathRule, outer: PathRule) -> bool:
    inside, outside = path_key(inner.prefix, NATIVE), path_key(outer.prefix, NATIVE)
    return inside == outside or inside.startswith(outside + ("\\" if NATIVE == "windows" else "/"))
