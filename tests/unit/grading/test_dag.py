"""The DAG: five tasks per submission, one report, edges that let a failed stage still give a row."""

from __future__ import annotations

from espalier_api.gradingjob import Execution
from espalier_api.tasks import ReportTask, SubmissionTask
from espalier_grading.dag import Entry, children
from espalier_kit.execution import When
from tests.support.grading import settings

SPECS = {
    spec.key: spec
    for spec in children(
        settings("a" * 64, "b" * 64), [Entry("s-1", "ann", "c" * 64), Entry("s-2", "ben", "d" * 64)], admit_key="admit"
    )
}


def test_each_submission_has_its_five_tasks_together_and_the_report_is_last() -> None:
    assert list(SPECS) == [
        "intake/s-1", "execute/s-1", "judge/s-1/code", "judge/s-1/feedback", "score/s-1",
        "intake/s-2", "execute/s-2", "judge/s-2/code", "judge/s-2/feedback", "score/s-2",
        "report",
    ]  # fmt: skip


def test_the_score_waits_for_the_end_of_each_stage_however_it_comes() -> None:
    edges = {(d.key, d.when) for d in SPECS["score/s-1"].depends_on}
    keys = ("intake/s-1", "execute/s-1", "judge/s-1/code", "judge/s-1/feedback")
    assert edges == {(key, When.FINISHED) for key in keys}


def test_the_judges_do_not_wait_for_each_other() -> None:
    for judge in ("code", "feedback"):
        assert {d.key for d in SPECS[f"judge/s-1/{judge}"].depends_on} == {"intake/s-1", "execute/s-1"}


def test_the_report_waits_for_every_score_and_knows_the_admission() -> None:
    edges = {(d.key, d.when) for d in SPECS["report"].depends_on}
    assert edges == {("admit", When.DONE), ("score/s-1", When.FINISHED), ("score/s-2", When.FINISHED)}
    assert ReportTask.model_validate(SPECS["report"].payload).pseudonyms == ("s-1", "s-2")


def test_only_intake_is_told_the_students_name() -> None:
    folders = {
        key: SubmissionTask.model_validate(spec.payload).folder for key, spec in SPECS.items() if key != "report"
    }
    assert {key for key, folder in folders.items() if folder} == {"intake/s-1", "intake/s-2"}


def test_only_tasks_that_run_code_need_a_one_shot_pod() -> None:
    asked = settings("a" * 64, "b" * 64).model_copy(update={"execution": Execution(sandbox="gvisor")})
    specs = children(asked, [Entry("s-1", "ann", "c" * 64)], admit_key="admit")
    assert {spec.key: spec.tags for spec in specs if spec.tags} == {"execute/s-1": ("sandbox/gvisor",)}
    assert not any(spec.tags for spec in SPECS.values()), "bubblewrap runs in any worker"
