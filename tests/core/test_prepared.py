"""What was done ahead of a confinement: it holds all the same, says all the same, and leaves nothing open."""

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
def test_paths_from_before_and_from_the_confinement_may_be_read(uid: int) -> None:
    """The interpreter's, which were put in ahead, and those that came; not those it was prepared with, nor others."""
    assert value(uid, "paths_of_both") == ["done", "done", "EACCES", "EACCES", "EACCES"]


@EVERYONE
def test_no_descriptor_is_left(uid: int) -> None:
    """The one that was held ahead is closed when the report says so."""
    assert value(uid, "nothing_stays_open") == [True, KEPT, KEPT]


@EVERYONE
def test_another_confinement_than_expected_holds_as_it_is(uid: int) -> None:
    """What was begun for other rights, or with other paths, is left and closed."""
    assert value(uid, "another_confinement") == ["EACCES", "active", KEPT]
    assert value(uid, "names_too") == ["done", "EACCES", KEPT]
    assert value(uid, "nothing_restricted") == ["disabled", KEPT]


@EVERYONE
def test_a_descriptor_is_closed_once(uid: int) -> None:
    """Its number may be another's afterwards."""
    assert value(uid, "dropped_twice") == [True, True]


@EVERYONE
def test_a_second_confinement_tightens_and_reports_in_full(uid: int) -> None:
    """Reads are allowed until then and not afterwards; each layer is applied and each witness tried again."""
    assert value(uid, "tightened") == ["done", "EACCES", True, False, True, True, [0, 0, 0]]


@EVERYONE
def test_nothing_prepared_widens(uid: int) -> None:
    """What is closed stays closed."""
    assert "asks for less than is in force: reads closed already" in value(uid, "wider")
