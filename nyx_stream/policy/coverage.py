"""How two rules relate: whether one covers all that the other speaks of, or some of it. Pure.

`covers` never says yes wrongly; `overlaps` never says no wrongly. Between path patterns with several wildcards both are
cautious, so that a plan may say "partly" where a person would say "granted", but never the other way round.
"""

from nyx_core.beneath.text import NATIVE
from nyx_stream.policy.connect_rule import ConnectRule
from nyx_stream.policy.hosts import address_number, is_address
from nyx_stream.policy.path_rule import PathRule, path_key
from nyx_stream.policy.request_rule import DEFAULT_METHODS, RequestRule
from nyx_stream.policy.url_path import PathPattern

Rule = ConnectRule | RequestRule | PathRule


def covers(wide: Rule, narrow: Rule) -> bool:
    """Tells whether `wide` allows everything that `narrow` does. A connect rule has every request over http(s)."""
    match wide, narrow:
        case ConnectRule(), ConnectRule():
            return _connect_covers(wide, narrow)
        case ConnectRule(), RequestRule():
            return narrow.scheme in ("http", "https") and _connect_covers(wide, endpoint(narrow))
        case RequestRule(), RequestRule():
            return (
                (wide.scheme, wide.port) == (narrow.scheme, narrow.port)
                and _host_covers(wide.host, wide.wildcard, narrow.host, narrow.wildcard)
                and methods(narrow) <= methods(wide)
                and _path_covers(wide.path, narrow.path)
            )
        case PathRule(), PathRule():
            return (wide.mode == "rw" or narrow.mode == "r") and _below(narrow, wide)
    return False


def overlaps(one: Rule, other: Rule) -> bool:
    """Tells whether some target may belong to both; for paths, whether some may be read by both."""
    match one, other:
        case RequestRule(), ConnectRule():
            return overlaps(other, one)
        case ConnectRule(), ConnectRule():
            return _connect_overlaps(one, other)
        case ConnectRule(), RequestRule():
            return other.scheme in ("http", "https") and _connect_overlaps(one, endpoint(other))
        case RequestRule(), RequestRule():
            return (
                (one.scheme, one.port) == (other.scheme, other.port)
                and _hosts_overlap(one.host, one.wildcard, other.host, other.wildcard)
                and (one.methods is None or other.methods is None or bool(one.methods & other.methods))
                and _paths_overlap(one.path, other.path)
            )
        case PathRule(), PathRule():
            return _below(one, other) or _below(other, one)
    return False


def methods(rule: RequestRule) -> frozenset[str]:
    """Returns the methods that an allow rule speaks of."""
    return DEFAULT_METHODS if rule.methods is None else rule.methods


def endpoint(rule: RequestRule) -> ConnectRule:
    """Returns the connect rule for the origins of a request rule."""
    length = (128 if ":" in rule.host else 32) if is_address(rule.host) else None
    return ConnectRule(rule.host, rule.port, rule.wildcard, length)


def _connect_covers(wide: ConnectRule, narrow: ConnectRule) -> bool:
    if wide.port is not None and wide.port != narrow.port:
        return False
    if wide.length is not None or narrow.length is not None:
        return _network_covers(wide, narrow)
    return _host_covers(wide.host, wide.wildcard, narrow.host, narrow.wildcard)


def _connect_overlaps(one: ConnectRule, other: ConnectRule) -> bool:
    if one.port is not None and other.port is not None and one.port != other.port:
        return False
    if one.length is not None or other.length is not None:
        return _network_covers(one, other) or _network_covers(other, one)
    return _hosts_overlap(one.host, one.wildcard, other.host, other.wildcard)


def _network_covers(wide: ConnectRule, narrow: ConnectRule) -> bool:
    if wide.length is None or narrow.length is None or wide.length > narrow.length:
        return False
    (wide_version, wide_number), (version, number) = address_number(wide.host), address_number(narrow.host)
    shift = (32 if version == 4 else 128) - wide.length
    return wide_version == version and wide_number >> shift == number >> shift


def _host_covers(wide: str, wide_star: bool, narrow: str, narrow_star: bool) -> bool:
    if wide_star:
        return narrow.endswith("." + wide) or (narrow_star and narrow == wide)
    return not narrow_star and narrow == wide


def _hosts_overlap(one: str, one_star: bool, other: str, other_star: bool) -> bool:
    return _host_covers(one, one_star, other, other_star) or _host_covers(other, other_star, one, one_star)


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


def _below(inner: PathRule, outer: PathRule) -> bool:
    inside, outside = path_key(inner.prefix, NATIVE), path_key(outer.prefix, NATIVE)
    return inside == outside or inside.startswith(outside + ("\\" if NATIVE == "windows" else "/"))
