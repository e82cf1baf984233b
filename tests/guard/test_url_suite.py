"""The URL suite as a differential: the guard refuses, or decides on the host that a browser reaches."""

import json
from pathlib import Path
from typing import Any

import pytest

from nyx_stream.guard.url_parts import UrlError, read_url

SUITE = [
    case
    for case in json.loads((Path(__file__).parents[1] / "cases" / "urltestdata.json").read_text(encoding="utf-8"))
    if isinstance(case, dict) and case.get("base") is None
]


@pytest.mark.parametrize("case", SUITE, ids=range(len(SUITE)))
def test_the_guard_reads_the_host_that_a_browser_reaches(case: dict[str, Any]) -> None:
    """For an absolute URL the guard's host and port are the suite's, or the guard refuses the URL."""
    try:
        parts = read_url(case["input"])
    except UrlError:
        return
    assert not case.get("failure"), f"a browser refuses {case['input']!r}, the guard read {parts}"
    host = case["hostname"].strip("[]").removesuffix(".")
    if host.startswith("::ffff:"):  # the guard counts an IPv4-mapped address as its IPv4 address
        assert "." in parts.host
    else:
        assert parts.host == host
    assert parts.scheme == case["protocol"].removesuffix(":")
    default = {"http": 80, "https": 443, "ws": 80, "wss": 443}[parts.scheme]
    assert parts.port == int(case["port"] or default)


def test_the_suite_is_not_refused_wholesale() -> None:
    """Plain absolute URLs of the suite are read: a guard that refuses everything would pass the differential."""
    read = 0
    for case in SUITE:
        try:
            read_url(case["input"])
        except UrlError:
            continue
        read += 1
    assert read >= 40
