"""The executors: what a task reads, which stage it calls, what it returns. Only wiring; the DAG itself is `dag`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError

from espalier_api.meta import Model
from espalier_api.tasks import (
    TALLY_EXECUTED,
    TALLY_FAILED,
    TALLY_FAILOVER,
    TALLY_GRADED,
    TALLY_NOT_GRADABLE,
    TALLY_PLAIN_TEXT,
    TALLY_POINTS,
    TALLY_REACHED,
    TALLY_REVIEW,
    TALLY_SUBMISSIONS,
    GradingSettings,
    ReachTask,
    ReportTask,
    SubmissionTask,
)
from espalier_grading import bundle as bundles
from espalier_grading import dag, lint
from espalier_grading import report as reports
from espalier_grading.archive import split_by_folder
from espalier_grading.bundle import Bundle
from espalier_grading.check import check
from espalier_grading.evidence import check_evidence
from espalier_grading.execute import run_notebook
from espalier_grading.intake import own_run, prepare, pseudonyms
from espalier_grading.judge import Question, ask_about, read_answer
from espalier_grading.model import (
    Executed,
    Graded,
    Intake,
    Judged,
    NotebookResult,
    NotebookRun,
    Prepared,
    Row,
    TestResult,
    Value,
    Verdict,
)
from espalier_grading.reach import troubles
from espalier_grading.sandboxes import sandbox
from espalier_grading.score import grade
from espalier_grading.servers import Reply, Servers
from espalier_kit.artifacts import ArtifactStore
from espalier_kit.clock import SystemClock
from espalier_kit.digest import canonical_json
from espalier_kit.errors import NotFound, Permanent
from espalier_kit.execution import Context, EvaluatorFault, PlatformFault, Result, Task

M = TypeVar("M", bound=Model)
T = TypeVar("T")
R = TypeVar("R")
_SIDE_BY_SIDE = 16
"""Artifacts on their way at once; each is a small request that mostly waits."""
_CLOCK = SystemClock()
_SERVERS = Servers(_CLOCK)
_MARGIN_SECONDS = 10.0
"""Left of an attempt's time when the judges stop waiting, to report why."""
_REACH_SECONDS = 60.0
"""How long one attempt waits for endpoints; then the worker has its slot back for a while."""
_REACH_POLL_SECONDS = 5.0


class BundleCache:
    """Parsed bundles by digest: every task of a class needs the same one."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._bundles: dict[str, Bundle] = {}

    async def get(self, artifacts: ArtifactStore, sha256: str) -> Bundle:
        """The bundle. Raises `EvaluatorFault`: SourceNotFound, BundleRejected."""
        if sha256 not in self._bundles:
            parsed = bundles.parse(await _source(artifacts, sha256, "assignment"))
            while len(self._bundles) >= self._size:
                self._bundles.pop(next(iter(self._bundles)))
            self._bundles[sha256] = parsed
        return self._bundles[sha256]


_BUNDLES = BundleCache()


async def admit(task: Task, context: Context) -> Result:
    """Check the bundle by itself and by its own solution and blank template; then lay out the class's DAG."""
    settings = _payload(GradingSettings, task.payload)
    bundle = await _BUNDLES.get(context.artifacts, settings.assignment)
    if findings := lint.lint(bundle, settings):
        raise bundles.rejected(findings)
    solution = await _own_tests(bundle, settings, task=task, part="solution")
    await context.progress(0.4, "the solution ran")
    blank = await _own_tests(bundle, settings, task=task, part="release")
    await context.progress(0.7, "the blank template ran")
    if findings := lint.lint_runs(solution, blank):
        raise bundles.rejected(findings)
    try:
        folders = await asyncio.to_thread(
            split_by_folder, await _source(context.artifacts, settings.submissions, "submissions")
        )
    except Permanent as error:
        if isinstance(error, EvaluatorFault):
            raise
        raise bundles.rejected([f"the submissions are {error}"]) from error
    if not folders:
        raise bundles.rejected(["the submissions' tar has no folder: it needs one for each student"])
    names = pseudonyms(folders, job_uid=task.job_uid)
    stored = await _side_by_side(folders.values(), context.artifacts.put)
    entries = [dag.Entry(names[folder], folder, digest) for folder, digest in zip(folders, stored, strict=True)]
    mapping = await context.artifacts.put(canonical_json({pseudonym: folder for folder, pseudonym in names.items()}))
    return Result(
        value={"names": mapping, "submissions": len(entries)},
        tallies={TALLY_SUBMISSIONS: float(len(entries))},
        children=dag.children(settings, entries, admit_key=task.key),
    )


async def reach(task: Task, context: Context) -> Result:
    """Wait until every judge's endpoint outside the platform can be asked; what is wrong is told as progress."""
    judges = _payload(ReachTask, task.payload).judges
    left = (task.deadline - datetime.now(UTC)).total_seconds() - _MARGIN_SECONDS
    end = _CLOCK.monotonic() + min(left, _REACH_SECONDS)
    while found := await troubles(context.endpoints(), judges):
        said = "; ".join(found)
        await context.progress(0.0, said)
        if _CLOCK.monotonic() + _REACH_POLL_SECONDS > end:
            raise PlatformFault(said, reason="EndpointUnavailable")
        await _CLOCK.sleep(_REACH_POLL_SECONDS)
    return Result(tallies={TALLY_REACHED: 1.0})


async def intake(task: Task, context: Context) -> Result:
    """Read and align one submission."""
    payload = _payload(SubmissionTask, task.payload)
    started = _now()
    bundle = await _BUNDLES.get(context.artifacts, payload.settings.assignment)
    archive = await context.artifacts.get(payload.archive)
    prepared = await asyncio.to_thread(prepare, bundle, archive, pseudonym=payload.pseudonym, folder=payload.folder)
    stored = await context.artifacts.put(prepared.model_dump_json().encode())
    return _result(Intake(prepared=stored, findings=prepared.findings[:50], started=started))


async def execute(task: Task, context: Context) -> Result:
    """Run one submission's notebooks in the sandbox and check its tests; without tests there is nothing to run for."""
    payload = _payload(SubmissionTask, task.payload)
    bundle = await _BUNDLES.get(context.artifacts, payload.settings.assignment)
    if not bundle.tests():
        return _result(Executed(tests=()), tallies={TALLY_EXECUTED: 1.0})
    prepared = await _prepared(task, context)
    results = await _run(bundle, prepared.notebooks, payload.settings, task=task)
    dumped = canonical_json([result.model_dump(mode="json") for result in results])
    executed = Executed(tests=check(bundle.tests(), results), results=await context.artifacts.put(dumped))
    return _result(executed, tallies={TALLY_EXECUTED: 1.0})


async def judge(task: Task, context: Context) -> Result:
    """Ask one judge about one submission."""
    payload = _payload(SubmissionTask, task.payload)
    assert payload.judge is not None
    bundle = await _BUNDLES.get(context.artifacts, payload.settings.assignment)
    question = ask_about(bundle, await _prepared(task, context), judge=payload.judge, fence=secrets.token_hex(4))
    if not question.needs_model:
        return _result(Judged(judge=payload.judge, verdicts=question.decided))
    asked = payload.settings.code if payload.judge == "code" else payload.settings.feedback
    left = (task.deadline - datetime.now(UTC)).total_seconds() - _MARGIN_SECONDS
    reply = await _SERVERS.ask(question, asked, context=context, seconds=max(1.0, left))
    return _result(judged(question, reply))


async def score(task: Task, context: Context) -> Result:
    """One row, whatever became of the stages."""
    payload = _payload(SubmissionTask, task.payload)
    bundle = await _BUNDLES.get(context.artifacts, payload.settings.assignment)
    inputs = dag.stages_of(payload.pseudonym, task.inputs)
    graded = grade(bundle, inputs, pseudonym=payload.pseudonym, scale=payload.settings.scale_points, now=_now())
    detail = await context.artifacts.put(graded.model_dump_json().encode())
    row = Row(pseudonym=graded.pseudonym, state=graded.state, points=graded.points, detail=detail)
    return _result(row, tallies=tallies(graded))


async def report(task: Task, context: Context) -> Result:
    """The class's pages, tables and figures."""
    payload = _payload(ReportTask, task.payload)
    settings = payload.settings
    bundle = await _BUNDLES.get(context.artifacts, settings.assignment)
    names = await _names(task, context)
    graded = await _side_by_side(payload.pseudonyms, lambda pseudonym: _graded(pseudonym, task, context))
    class_ = reports.Class(
        job=task.job_name,
        title=bundle.assignment.title or bundle.assignment.name,
        scale=settings.scale_points,
        graded=tuple(graded),
        names=names,
        is_shared_hardware=settings.shared_hardware,
    )
    files = await asyncio.to_thread(reports.report_files, class_)
    digests = await _side_by_side(files.values(), context.artifacts.put)
    names_and_digests = dict(zip(files, digests, strict=True))
    index = await context.artifacts.put(canonical_json({"job": task.job_name, "files": names_and_digests}))
    return Result(value=reports.summary(class_, index=index).wire())


def judged(question: Question, reply: Reply) -> Judged:
    """A model's answer as verdicts with checked evidence. Pure."""
    reading = read_answer(question, reply.content)
    texts: dict[str, dict[str, str]] = {}
    for (number, label), text in question.texts.items():
        criterion = question.criteria[number]
        texts.setdefault(criterion.id, {})[criterion.cells[int(label) - 1]] = text
    checked = tuple(_checked(verdict, texts) for verdict in reading.verdicts)
    return Judged(
        judge=question.judge,
        verdicts=(*question.decided, *checked),
        comment=reading.comment[:4000],
        call=reply.call,
        is_failover=reply.is_failover,
        is_plain_text=reading.is_plain_text,
        flags=question.flags,
    )


def tallies(graded: Graded) -> dict[str, float]:
    """What this submission adds to the job's sums; `graded` counts those that await review too."""
    found = {
        TALLY_GRADED: float(graded.points is not None),
        TALLY_REVIEW: float(graded.state == "needsReview"),
        TALLY_NOT_GRADABLE: float(graded.state == "notGradable"),
        TALLY_FAILED: float(graded.state == "failed"),
        TALLY_POINTS: graded.points or 0.0,
        TALLY_FAILOVER: float(bool(graded.failover)),
        TALLY_PLAIN_TEXT: float(bool(graded.plain_text)),
    }
    return {name: value for name, value in found.items() if value}


async def _side_by_side(values: Iterable[T], act: Callable[[T], Awaitable[R]]) -> list[R]:
    """`act` on each value, a few at a time; results in the values' order. The first error ends it."""
    free = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(value: T) -> R:
        async with free:
            return await act(value)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(value)) for value in values]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def _own_tests(bundle: Bundle, settings: GradingSettings, *, task: Task, part: str) -> list[TestResult]:
    if not bundle.tests():
        return []
    runs = tuple(own_run(n, n.solution if part == "solution" else n.release) for n in bundle.notebooks)
    return list(check(bundle.tests(), await _run(bundle, runs, settings, task=task)))


async def _run(
    bundle: Bundle, runs: tuple[NotebookRun, ...], settings: GradingSettings, *, task: Task
) -> list[NotebookResult]:
    confined = sandbox(settings.execution.sandbox)
    is_last_try = task.attempt > 1
    return [
        await run_notebook(confined, run, data=bundle.data, execution=settings.execution, is_last_try=is_last_try)
        for run in runs
    ]


async def _prepared(task: Task, context: Context) -> Prepared:
    key = f"intake/{task.payload['pseudonym']}"
    value = Intake.model_validate(task.inputs[key].value)
    return Prepared.model_validate_json(await context.artifacts.get(value.prepared))


async def _graded(pseudonym: str, task: Task, context: Context) -> Graded:
    """The scored submission; a row all the same if the score itself failed."""
    outcome = task.inputs.get(f"score/{pseudonym}")
    if outcome is None or not outcome.value:
        reason = (outcome.reason or outcome.state.value) if outcome else "NoScore"
        return Graded(pseudonym=pseudonym, state="failed", reason=reason, message=outcome.message if outcome else "")
    row = Row.model_validate(outcome.value)
    return Graded.model_validate_json(await context.artifacts.get(row.detail))


async def _names(task: Task, context: Context) -> dict[str, str]:
    """The students' folders by pseudonym, from the admission's value."""
    values = [outcome.value for outcome in task.inputs.values() if outcome.value and "names" in outcome.value]
    if not values:
        return {}
    names: dict[str, str] = json.loads(await context.artifacts.get(values[0]["names"]))
    return names


async def _source(artifacts: ArtifactStore, sha256: str, what: str) -> bytes:
    try:
        return await artifacts.get(sha256)
    except NotFound as error:
        raise EvaluatorFault(
            f"spec.{what}: no artifact {sha256} in this namespace; run `espalier push`", reason="SourceNotFound"
        ) from error


def _checked(verdict: Verdict, texts: Mapping[str, Mapping[str, str]]) -> Verdict:
    return check_evidence(verdict, texts.get(verdict.criterion, {}))


def _payload(cls: type[M], payload: Mapping[str, object]) -> M:
    try:
        return cls.model_validate(payload)
    except ValidationError as error:
        raise PlatformFault(
            f"the task's payload is not a {cls.__name__}: {error}"[:500], reason="BadPayload"
        ) from error


def _result(value: Value, *, tallies: Mapping[str, float] | None = None) -> Result:
    return Result(value=value.model_dump(mode="json"), tallies=tallies or {})


def _now() -> float:
    return _CLOCK.now().timestamp()
