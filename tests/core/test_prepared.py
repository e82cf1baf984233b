"""A prepared confinement holds and reports like any other, and leaves nothing open."""

from functools import cache
from typing import Any

import pytest

from tests.core.child import Outcome, identities, run_cases

EVERYONE = pytest.mark.parametrize("uid", identities())
KEPT = [0, 1, 2]


@cache
def outcomes(uid: int) -> dict[str, Outcome]:
    return run_cases("tests.core.cases_prepared", uid)


def value(uid: int, case: str) -> Any:
    outcome = outcomes(uid)[case]
    assert outcome.ended == "returned", outcome
    return outcome.value


@EVERYONE
def test_paths_of_the_interpreter_and_the_confinement_can_be_read(uid: int) -> None:
    """The interpreter's paths and those of the confinement can be read; those it was prepared with can't."""
    assert value(uid, "paths_of_both") == ["done", "done", "EACCES", "EACCES", "EACCES"]


@EVERYONE
def test_no_descriptor_is_left(uid: int) -> None:
    """The prepared descriptor is closed when the report says so."""
    assert value(uid, "nothing_stays_open") == [True, KEPT, KEPT]


@EVERYONE
def test_another_confinement_than_expected_is_applied_as_requested(uid: int) -> None:
    """A ruleset prepared for other rights or paths is discarded and closed."""
    assert value(uid, "another_confinement") == ["EACCES", "active", KEPT]
    assert value(uid, "name_resolution_too") == ["done", "EACCES", KEPT]
    assert value(uid, "nothing_restricted") == ["disabled", KEPT]


@EVERYONE
def test_a_descriptor_is_closed_once(uid: int) -> None:
    """Its number may belong to another file afterwards."""
    assert value(uid, "closed_twice") == [True, True]


@EVERYONE
def test_a_second_confinement_tightens_and_reports_in_full(uid: int) -> None:
    """Reads are allowed until then. Each layer is applied and each attempt made again."""
    assert value(uid, "tightened") == ["done", "EACCES", True, False, True, True, [0, 0, 0]]


@EVERYONE
def test_nothing_prepared_widens(uid: int) -> None:
    """What is closed stays closed."""
    assert "asks for less than is in force: reads closed already" in value(uid, "wider")
