"""The tasks of a job: generators, a point between load and questions, questions in chunks, the report. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from espalier_api.benchmarkload import Evaluator
from espalier_api.benchmarktasks import (
    ACCURACY,
    GENERATE,
    LOADED,
    REPORT,
    AccuracyTask,
    BenchmarkReportTask,
    BenchmarkSettings,
    DatasetSettings,
    GenerateTask,
    PackSettings,
    runs_answers,
)
from espalier_api.tasks import sandbox_tags
from espalier_benchmark.plan import attempt_s
from espalier_kit.execution import Dependency, TaskSpec, When

PATIENCE_S = 300.0
"""How long a generator waits for the others."""
CHUNK = 16
"""Questions of one task: what another worker repeats if this one is lost; the same worker repeats none."""
MAX_TASKS = 400
LOADED_KEY = "loaded"
REPORT_KEY = "report"


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """`count` questions of a pack, or of an evaluator, to one target."""

    target: int
    count: int
    pack: PackSettings | None = None
    evaluator: Evaluator | None = None

    @property
    def name(self) -> str:
        """In keys and figures."""
        return self.pack.name if self.pack else str(self.evaluator)


def targets_of(evaluator: Evaluator, targets: int) -> range:
    """A judge compares two targets in one go, from the candidate's side; all else is asked of each target."""
    return range(1, 2) if evaluator == "judge" and targets == 2 else range(targets)


def children(
    settings: BenchmarkSettings, sets: Sequence[QuestionSet], *, admit_key: str, now: float
) -> tuple[TaskSpec, ...]:
    """All tasks that follow the admission."""
    generators = _generators(settings, admit_key=admit_key, now=now)
    questions = _questions(settings, sets, generators, admit_key=admit_key)
    loaded = TaskSpec(
        LOADED_KEY,
        LOADED,
        {},
        tuple(Dependency(each.key, When.FINISHED) for each in generators) or (Dependency(admit_key),),
    )
    ends = (*generators, *questions)
    report = TaskSpec(
        REPORT_KEY,
        REPORT,
        BenchmarkReportTask(settings=settings).wire(),
        (Dependency(admit_key), *(Dependency(each.key, When.FINISHED) for each in ends)),
    )
    return (*generators, *((loaded,) if questions else ()), *questions, report)


def accuracy_key(target: int, name: str, start: int) -> str:
    """Of one chunk."""
    return f"accuracy/{target}/{name}/{start}"


def chunk_of(key: str) -> tuple[int, str, int]:
    """(target, pack or evaluator, first) of such a key."""
    _, target, rest = key.split("/", 2)
    name, _, start = rest.rpartition("/")
    return int(target), name, int(start)


def _generators(settings: BenchmarkSettings, *, admit_key: str, now: float) -> tuple[TaskSpec, ...]:
    if settings.load is None:
        return ()
    seconds = attempt_s(settings.load, targets=len(settings.targets), patience_s=PATIENCE_S)
    return tuple(
        TaskSpec(
            f"generate/{number}",
            GENERATE,
            GenerateTask(settings=settings, number=number, start_at=now).wire(),
            (Dependency(admit_key),),
            timeout_s=seconds,
        )
        for number in range(settings.generators)
    )


def _questions(
    settings: BenchmarkSettings, sets: Sequence[QuestionSet], generators: Sequence[TaskSpec], *, admit_key: str
) -> tuple[TaskSpec, ...]:
    total = sum(each.count for each in sets)
    size = max(CHUNK, math.ceil(total / MAX_TASKS))
    asked = _without_run(settings)
    # Under a limit it matters what the load has spent; otherwise nothing of this run may be in a cacheable task.
    before = tuple(Dependency(each.key, When.FINISHED) for each in generators) if settings.limits else ()
    found = []
    for each in sets:
        for start in range(0, each.count, size):
            count = min(size, each.count - start)
            task = AccuracyTask(
                settings=asked, target=each.target, pack=each.pack, evaluator=each.evaluator, first=start, count=count,
                share=count / total if settings.limits else 1.0,
            )  # fmt: skip
            found.append(
                TaskSpec(
                    accuracy_key(each.target, each.name, start),
                    ACCURACY,
                    task.wire(),
                    (Dependency(LOADED_KEY), *before),
                    tags=sandbox_tags(settings.sandbox) if each.pack and runs_answers(each.pack.name) else (),
                    cache="read-write" if settings.cache else "",
                )
            )
    return tuple(found)


def _without_run(settings: BenchmarkSettings) -> BenchmarkSettings:
    """Only what decides an answer: equal questions of another job have an equal payload."""
    accuracy = settings.accuracy
    return settings.model_copy(
        update={
            "job": "",
            "load": None,
            "trace": None,
            "dataset": DatasetSettings(),
            "slo": None,
            "generators": 1,
            "accuracy": accuracy.model_copy(update={"packs": (), "evaluators": ()}) if accuracy else None,
        }
    )
