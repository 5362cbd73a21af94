"""The DAG of a class: five tasks per submission and one report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from espalier_api.tasks import GradingSettings, Judge, ReportTask, SubmissionTask, sandbox_tags
from espalier_kit.execution import Dependency, Outcome, TaskSpec, When

JUDGES: tuple[Judge, ...] = get_args(Judge)


@dataclass(frozen=True, slots=True)
class Entry:
    """One submission: its pseudonym, the student's folder, the artifact of its files."""

    pseudonym: str
    folder: str
    archive: str


def children(settings: GradingSettings, entries: Sequence[Entry], *, admit_key: str) -> tuple[TaskSpec, ...]:
    """All tasks after admission, each submission's together, so that the first grades come while the last wait."""
    tasks = [spec for entry in entries for spec in submission_tasks(settings, entry)]
    names = tuple(entry.pseudonym for entry in entries)
    waits = (Dependency(admit_key), *(Dependency(f"score/{name}", When.FINISHED) for name in names))
    return (*tasks, TaskSpec("report", "grading.report", ReportTask(settings=settings, pseudonyms=names).wire(), waits))


def submission_tasks(settings: GradingSettings, entry: Entry) -> tuple[TaskSpec, ...]:
    """intake → execute → both judges → score; the score waits for the end of each, however it comes."""
    name = entry.pseudonym

    def payload(**more: Any) -> dict[str, Any]:
        return SubmissionTask(settings=settings, pseudonym=name, folder="").model_copy(update=more).wire()

    intake, execute = f"intake/{name}", f"execute/{name}"
    judges = {judge: f"judge/{name}/{judge}" for judge in JUDGES}
    tags = sandbox_tags(settings.execution.sandbox)
    ends = tuple(Dependency(key, When.FINISHED) for key in (intake, execute, *judges.values()))
    return (
        TaskSpec(intake, "grading.intake", payload(folder=entry.folder, archive=entry.archive)),
        TaskSpec(execute, "grading.execute", payload(), (Dependency(intake),), tags=tags),
        *(
            TaskSpec(key, "grading.judge", payload(judge=judge), (Dependency(intake), Dependency(execute)))
            for judge, key in judges.items()
        ),
        TaskSpec(f"score/{name}", "grading.score", payload(), ends),
    )


def stages_of(pseudonym: str, inputs: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """A submission's outcomes by stage: `intake`, `execute`, `code`, `feedback`, in the order in which they happen."""
    keys = {"intake": f"intake/{pseudonym}", "execute": f"execute/{pseudonym}"} | {
        j: f"judge/{pseudonym}/{j}" for j in JUDGES
    }
    return {stage: inputs[key] for stage, key in keys.items() if key in inputs}
