"""Differential test against the URL standard's suite: the guard refuses a URL, or reads the host a browser does."""

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
def test_the_guard_reads_the_host_that_a_browser_reads(case: dict[str, Any]) -> None:
    """For an absolute URL the guard's host and port are the suite's, or the guard refuses the URL."""
    try:
        parts = read_url(case["input"])
    except UrlError:
        return
    assert not case.get("failure"), f"a browser refuses {case['input']!r}, the guard read {parts}"
    host = case["hostname"].strip("[]").removesuffix(".")
    if host.startswith("::ffff:"):  # the guard turns an IPv4-mapped address into its IPv4 address
        assert "." in parts.host
    else:
        assert parts.host == host
    assert parts.scheme == case["protocol"].removesuffix(":")
    default = {"http": 80, "https": 443, "ws": 80, "wss": 443}[parts.scheme]
    assert parts.port == int(case["port"] or default)


def test_the_guard_does_not_refuse_the_whole_suite() -> None:
    """The guard reads plain absolute URLs. If it refused everything, the differential test would pass too."""
    read = 0
    for case in SUITE:
        try:
            read_url(case["input"])
        except UrlError:
            continue
        read += 1
    assert read >= 40
