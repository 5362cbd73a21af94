"""Exactly one outcome for each submission, whatever became of its stages."""

from __future__ import annotations

import pytest

from espalier_grading import bundle, stages
from espalier_grading.archive import write_tar
from espalier_grading.model import Executed, Intake, Judged, TestResult, Value, Verdict
from espalier_grading.score import grade
from espalier_kit.execution import Outcome, TaskState
from tests.support import classroom

BUNDLE = bundle.parse(write_tar(classroom.bundle()))


def _done(value: Value) -> Outcome:
    return Outcome(TaskState.DONE, value=value.model_dump(mode="json"))


GOOD = {
    "intake": _done(Intake(prepared="0" * 64, findings=(), started=5.0)),
    "execute": _done(Executed(tests=(TestResult(id="squares/square_test", points=2, earned=2),))),
    "code": _done(Judged(judge="code", verdicts=(Verdict(criterion="style", level="MET"),))),
    "feedback": _done(
        Judged(judge="feedback", verdicts=(Verdict(criterion="reflection", level="PARTIAL"),), comment="Nice.")
    ),
}


def _grade(**changes: Outcome):  # type: ignore[no-untyped-def]
    return grade(BUNDLE, GOOD | changes, pseudonym="s-1", scale=37.5, now=9.0)


def test_a_clean_submission_is_graded() -> None:
    graded = _grade()
    assert (graded.state, graded.earned, graded.total, graded.points) == ("graded", 3.5, 4, 32.81)
    assert graded.comment == "Nice."
    assert stages.tallies(graded) == {"graded": 1.0, "points": 32.81}


def test_doubts_send_it_to_review_with_its_points() -> None:
    failover = Judged(judge="code", verdicts=(Verdict(criterion="style", level="MET"),), is_failover=True)
    graded = _grade(code=_done(failover))
    assert (graded.state, graded.points) == ("needsReview", 32.81)
    assert stages.tallies(graded) == {"graded": 1.0, "needsReview": 1.0, "points": 32.81, "failover": 1.0}


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        pytest.param(
            {
                "intake": Outcome(TaskState.FAILED, reason="NotANotebook", message="squares.ipynb is broken"),
                "execute": Outcome(TaskState.SKIPPED),
            },
            "notGradable",
            "NotANotebook",
            id="broken-notebook",
        ),
        pytest.param(
            {"execute": Outcome(TaskState.FAILED, reason="SandboxFailed")}, "failed", "SandboxFailed", id="sandbox"
        ),
        pytest.param(
            {"code": Outcome(TaskState.FAILED, reason="ModelUnavailable")}, "failed", "ModelUnavailable", id="model"
        ),
        pytest.param({"feedback": Outcome(TaskState.CANCELLED)}, "failed", "cancelled", id="cancelled"),
        pytest.param({"code": Outcome(TaskState.DONE, value={"x": 1})}, "failed", "BadResult", id="unreadable"),
    ],
)
def test_a_stage_that_failed_gives_a_row_and_never_a_number(
    changes: dict[str, Outcome], state: str, reason: str
) -> None:
    graded = _grade(**changes)
    assert (graded.state, graded.reason, graded.points) == (state, reason, None)
    assert stages.tallies(graded) == {state: 1.0}
