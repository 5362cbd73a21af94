"""Aggregate: code computes every point; no model does arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from espalier_grading.bundle import Bundle, Criterion
from espalier_grading.model import CriterionScore, Level, TestResult, Verdict

DEFAULT_CREDIT: Mapping[Level, float] = {"MET": 1.0, "PARTIAL": 0.5, "UNMET": 0.0, "CANNOT_ASSESS": 0.0}


def score_criteria(
    bundle: Bundle, verdicts: Iterable[Verdict], tests: Iterable[TestResult]
) -> tuple[CriterionScore, ...]:
    """Every criterion of the rubric in its order; one without a verdict is void."""
    by_id = {verdict.criterion: verdict for verdict in verdicts}
    results = {test.id: test for test in tests}
    missing = {
        c.id: Verdict(criterion=c.id, level="CANNOT_ASSESS", void="no verdict") for c in bundle.assignment.rubric
    }
    return tuple(_score(c, (missing | by_id)[c.id], results) for c in bundle.assignment.rubric)


def earned(tests: Iterable[TestResult], criteria: Iterable[CriterionScore]) -> float:
    """Points of the bundle's own total."""
    return round(sum(t.earned for t in tests) + sum(c.earned for c in criteria), 6)


def scaled(points: float, *, total: float, scale: float) -> float:
    """scale × points/total, two decimals."""
    return round(scale * points / total, 2)


def _score(criterion: Criterion, verdict: Verdict, tests: Mapping[str, TestResult]) -> CriterionScore:
    share = 0.0 if verdict.void else (dict(DEFAULT_CREDIT) | criterion.credit)[verdict.level]
    cap = _cap(criterion, tests)
    failed = tuple(test for test in criterion.capped_by if test in tests and tests[test].reason)
    return CriterionScore(
        id=criterion.id,
        title=criterion.question,
        points=criterion.points,
        earned=round(criterion.points * min(share, cap), 6),
        verdict=verdict,
        capped_by=failed if cap < share else (),
    )


def _cap(criterion: Criterion, tests: Mapping[str, TestResult]) -> float:
    """The share of points that the capping tests earned; 1 without such tests."""
    capping = [tests[test] for test in criterion.capped_by if test in tests]
    worth = sum(test.points for test in capping)
    return sum(test.earned for test in capping) / worth if worth else 1.0
