"""The demo's own check of its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from espalier_cli.demo import SANDBOXES, problems, shortened, strongest_sandbox
from espalier_cli.local import Nodes
from espalier_cli.report import Row
from espalier_kube.fake import FakeCluster
from espalier_local import gvisor

ROWS = (
    Row("bitdiddle", "1.5/3", 4.33, 37.5, "needsReview"),
    Row("blank", "0.0/3", 0.0, 37.5, "graded"),
    Row("hacker", "3.0/3", 8.65, 37.5, "graded"),
)
REPORT: dict[str, Any] = {"submissions": [{"pseudonym": "s-1", "plain_text": []}]}
MODELS = {"code": {"outputTokens": 9}, "feedback": {"outputTokens": 9}}
STATUS = {"performance": {"models": MODELS, "parallelSpeedup": 1.65, "parallelEfficiency": 0.83}}


def test_the_known_result_has_no_problems() -> None:
    assert problems(ROWS, REPORT, STATUS) == []


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        pytest.param(ROWS[1:], "bitdiddle is missing", id="missing"),
        pytest.param((replace(ROWS[0], tests="2.5/3"), *ROWS[1:]), "nbgrader gives 1.5/3", id="tests"),
        pytest.param((ROWS[0], replace(ROWS[1], points=3.0), ROWS[2]), "has 3.0 points, not 0", id="floor"),
        pytest.param(
            (*ROWS[:2], replace(ROWS[2], state="failed", reason="away")), "hacker is failed: away", id="failed"
        ),
    ],
)
def test_another_result_is_named(rows: tuple[Row, ...], sentence: str) -> None:
    (problem,) = problems(rows, REPORT, STATUS)
    assert sentence in problem


def test_answers_that_are_no_json_and_judges_without_tokens_are_named() -> None:
    report = {"submissions": [{"pseudonym": "s-1", "plain_text": ["code"]}]}
    assert problems(ROWS, report, {}) == [
        "s-1: the code judge's answer was no valid JSON",
        "the code judge made no tokens",
        "the feedback judge made no tokens",
        "the judges' overlap was not measured",
    ]


def test_many_reasons_are_one_and_a_count() -> None:
    assert (shortened("a"), shortened("a; b; c"), shortened("")) == ("a", "a (and 2 more)", "")


@pytest.mark.parametrize(
    ("nodes", "has_gvisor", "expected"),
    [
        pytest.param(Nodes.process, False, "bubblewrap", id="process"),
        pytest.param(Nodes.container, True, "gvisor", id="container-with-gvisor"),
        pytest.param(Nodes.container, False, "container", id="container-without"),
    ],
)
async def test_submissions_run_in_the_strongest_sandbox_there_is_and_it_is_said(
    nodes: Nodes, has_gvisor: bool, expected: str
) -> None:
    cluster = FakeCluster()
    if has_gvisor:
        for found in gvisor.objects():
            await cluster.create(found)
    assert await strongest_sandbox(cluster, nodes) == expected
    assert SANDBOXES[expected]
