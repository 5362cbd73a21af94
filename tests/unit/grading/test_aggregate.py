"""Points are computed by code, bounded, and capped by failed tests."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from espalier_grading import bundle
from espalier_grading.aggregate import earned, scaled, score_criteria
from espalier_grading.archive import write_tar
from espalier_grading.model import LEVELS, Level, TestResult, Verdict
from tests.support import classroom


def _bundle(**changes: Any) -> bundle.Bundle:
    files = classroom.bundle()
    assignment = yaml.safe_load(files["assignment.yaml"])
    assignment["rubric"][0] |= changes
    return bundle.parse(write_tar({**files, "assignment.yaml": yaml.safe_dump(assignment).encode()}))


PASSED = TestResult(id="squares/square_test", points=2, earned=2)
FAILED = PASSED.model_copy(update={"earned": 0.0, "reason": "AssertionError"})


@pytest.mark.parametrize(("level", "points"), [("MET", 1.0), ("PARTIAL", 0.5), ("UNMET", 0.0), ("CANNOT_ASSESS", 0.0)])
def test_levels_earn_their_share(level: Level, points: float) -> None:
    scored = score_criteria(_bundle(), [Verdict(criterion="style", level=level)], [PASSED])
    assert scored[0].earned == points


def test_the_rubrics_own_shares_win() -> None:
    scored = score_criteria(_bundle(credit={"PARTIAL": 0.8}), [Verdict(criterion="style", level="PARTIAL")], [PASSED])
    assert scored[0].earned == 0.8


def test_a_void_verdict_earns_nothing_and_a_missing_one_is_void() -> None:
    scored = score_criteria(_bundle(), [Verdict(criterion="style", level="MET", void="no quote")], [PASSED])
    assert [c.earned for c in scored] == [0, 0]
    assert scored[1].verdict.void == "no verdict"


def test_failed_tests_cap_their_criteria() -> None:
    capped = _bundle(cappedBy=["squares/square_test"])
    verdicts = [Verdict(criterion="style", level="MET")]
    assert score_criteria(capped, verdicts, [FAILED])[0].earned == 0
    assert score_criteria(capped, verdicts, [FAILED])[0].capped_by == ("squares/square_test",)
    assert score_criteria(capped, verdicts, [PASSED])[0].earned == 1
    assert score_criteria(capped, verdicts, [PASSED])[0].capped_by == ()


@given(levels=st.lists(st.sampled_from(LEVELS), min_size=2, max_size=2), test=st.sampled_from([PASSED, FAILED]))
def test_points_stay_between_nothing_and_full_marks(levels: list[Level], test: TestResult) -> None:
    verdicts = [
        Verdict(criterion=name, level=level) for name, level in zip(("style", "reflection"), levels, strict=True)
    ]
    criteria = score_criteria(_bundle(), verdicts, [test])
    assert 0 <= scaled(earned([test], criteria), total=4, scale=37.5) <= 37.5


def test_scale_times_earned_over_total() -> None:
    assert scaled(1.5, total=13, scale=37.5) == 4.33
    assert scaled(13, total=13, scale=37.5) == 37.5
    assert scaled(0, total=13, scale=37.5) == 0
