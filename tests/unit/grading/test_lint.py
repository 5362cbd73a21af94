"""The linter: contradictions of a bundle as sentences."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from espalier_api.tasks import JudgeSettings
from espalier_grading import bundle, lint
from espalier_grading.archive import write_tar
from espalier_grading.model import TestResult
from tests.support import classroom
from tests.support.grading import settings


def _findings(*, job: dict[str, Any] | None = None, files: dict[str, bytes] | None = None, **changes: Any) -> list[str]:
    content = classroom.bundle()
    assignment = yaml.safe_load(content["assignment.yaml"]) | changes
    content |= {"assignment.yaml": yaml.safe_dump(assignment).encode(), **(files or {})}
    return lint.lint(bundle.parse(write_tar(content)), settings("0" * 64, "0" * 64, **(job or {})))


def _criterion(**changes: Any) -> dict[str, Any]:
    base = {"id": "style", "points": 2, "judge": "code", "cells": ["squares/square"], "question": "Short?"}
    return base | changes


def test_a_sound_bundle_has_no_findings() -> None:
    assert _findings() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"total": 5}, "tests 2 + rubric 2 = 4, but total is 5", id="sums"),
        pytest.param({"scale": 100}, "a scale of 100, but spec.scale.points is 37.5", id="scale"),
        pytest.param(
            {"rubric": [_criterion(cells=["squares/nowhere"])]}, "squares/nowhere is no answer cell", id="cell"
        ),
        pytest.param({"rubric": [_criterion(cells=["squares/square_test"])]}, "is no answer cell", id="test-as-answer"),
        pytest.param({"rubric": [_criterion(cappedBy=["squares/x"])]}, "cappedBy squares/x is no test", id="cap"),
        pytest.param(
            {"rubric": [_criterion(credit={"UNMET": 0.2})]}, "UNMET and CANNOT_ASSESS earn nothing", id="floor"
        ),
        pytest.param({"rubric": [_criterion(credit={"MET": 2})]}, "must be between 0 and 1", id="credit"),
        pytest.param({"rubric": [_criterion(points=1), _criterion(points=1)]}, "style is there 2 times", id="twice"),
        pytest.param({"rubric": [_criterion(section="a")]}, "section a is used but not declared", id="dangling"),
        pytest.param(
            {
                "sections": [{"id": "a", "points": 3}],
                "tests": {"squares/square_test": "a"},
                "rubric": [_criterion(section="a")],
            },
            "section a declares 3 points, but its tests and criteria sum to 4",
            id="section-sum",
        ),
        pytest.param(
            {"sections": [{"id": "a", "points": 2}], "rubric": [_criterion(section="a")]},
            "is in no section",
            id="loose-test",
        ),
    ],
)
def test_each_contradiction_is_named(changes: dict[str, Any], sentence: str) -> None:
    assert any(sentence in finding for finding in _findings(**changes))


def test_data_of_another_version_is_found() -> None:
    found = _findings(files={"x.csv": b"v2"}, data=[{"path": "x.csv", "sha256": "0" * 64}])
    assert any("data file x.csv has sha256" in finding for finding in found)


def test_a_verdict_that_does_not_fit_max_tokens_is_found() -> None:
    tight = JudgeSettings(max_tokens=40, temperature=0, seed=0)
    (finding,) = _findings(job={"code": tight})
    assert "the code judge's longest verdict needs about" in finding
    assert "models.code.maxTokens is 40" in finding


def test_the_self_test_names_each_wrong_test() -> None:
    solution = [
        TestResult(id="n/a", points=1, earned=0, reason="AssertionError"),
        TestResult(id="n/b", points=1, earned=1),
    ]
    blank = [TestResult(id="n/a", points=1, earned=1), TestResult(id="n/b", points=1, earned=0, reason="NameError")]
    assert lint.lint_runs(solution, blank) == [
        "the solution fails its own test n/a (AssertionError)",
        "the blank template passes test n/a: it would give points for nothing",
    ]
