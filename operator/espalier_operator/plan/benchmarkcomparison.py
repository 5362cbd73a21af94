"""The BenchmarkComparison's plan: wait for two runs, have them compared, tell the verdict as conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from espalier_api.benchmarkcomparison import BenchmarkComparison, Side
from espalier_api.benchmarktasks import COMPARE, COMPARISON_REJECTIONS, CompareSide, CompareTask, CompareValue
from espalier_kit.artifacts import SCHEME
from espalier_kit.execution import TaskSpec
from espalier_operator.plan.conditions import Conditions
from espalier_operator.plan.ending import Ending, not_admitted, outcome_of
from espalier_operator.plan.facts import ComparedRun, ComparisonFacts, Problem
from espalier_operator.plan.life import Life
from espalier_rpc.views import JobRequest, JobView

COMPARE_KEY = "compare"
VERDICTS = ("Improved", "Regressed", "Inconclusive")


def problem(facts: ComparisonFacts) -> Problem | None:
    """What is missing: a job, its end, its report, the target that is named."""
    for field, side, run in _sides(facts):
        if not run.exists:
            return Problem("RunNotFound", f"{field}: there is no BenchmarkJob {run.name} in this namespace")
        if not run.has_ended:
            return Problem("WaitingForRuns", f"{field}: BenchmarkJob {run.name} is {run.phase or 'Pending'}")
        if not run.index:
            said = f"{field}: BenchmarkJob {run.name} ended {run.phase} without a report"
            return Problem("RunFailed", said, is_final=True)
        if side.target is None and len(run.targets) != 1:
            named = " or ".join(run.targets)
            return Problem("TargetNotFound", f"{field}: say which target of {run.name}: {named}")
        if side.target is not None and side.target not in run.targets:
            named = ", ".join(run.targets)
            return Problem("TargetNotFound", f"{field}: BenchmarkJob {run.name} has no target {side.target}: {named}")
    return None


def request(facts: ComparisonFacts) -> JobRequest:
    """One task, which reads both runs' records."""
    job, policy, spec = facts.job, facts.job.spec.run_policy, facts.job.spec
    baseline, candidate = (
        CompareSide(job=run.name, target=side.target or run.targets[0], index=run.index)
        for _, side, run in _sides(facts)
    )
    task = CompareTask(
        baseline=baseline, candidate=candidate, metrics=spec.metrics, margin=spec.margin, alpha=spec.alpha,
        power=spec.power, seed=spec.seed,
    )
    return JobRequest(
        uid=job.metadata.uid, namespace=job.metadata.namespace, name=job.metadata.name, kind=job.kind,
        tasks=(TaskSpec(key=COMPARE_KEY, type=COMPARE, payload=task.wire()),), priority=policy.priority,
        retries=policy.retries, task_timeout_s=float(policy.task_timeout_seconds),
    )


def _sides(facts: ComparisonFacts) -> tuple[tuple[str, Side, ComparedRun], ...]:
    spec = facts.job.spec
    return ("baseline", spec.baseline, facts.runs[0]), ("candidate", spec.candidate, facts.runs[1])


def _completed(_: ComparisonFacts, view: JobView) -> Ending:
    found = outcome_of(view, COMPARE)
    if found is None or found.state != "done":
        why = found or next(iter(view.outcomes), None)
        if why is None:
            return Ending("Failed", "ReportFailed", "the comparison did not run")
        return not_admitted(why, COMPARISON_REJECTIONS, what="the two runs")
    try:
        value = CompareValue.model_validate(found.value)
    except ValidationError:
        return Ending("Failed", "ReportFailed", "the comparison returned no verdict")
    return Ending("Complete", "Finished", _summary(value), report=value)


def _summary(value: CompareValue) -> str:
    delta = "" if value.delta is None else f" ({value.metric} {value.delta:+.2%})"
    return f"{value.verdict}{delta}" + (f"; {value.message}" if value.message else "")


def _reported(facts: ComparisonFacts, end: Ending, conditions: Conditions) -> dict[str, Any]:
    """The verdict, as a condition each; Passed is the gate: better, or as good within the margin."""
    value = end.report
    if not isinstance(value, CompareValue):
        return {}
    why = "; ".join(f"{d.metric}: {d.verdict}, {d.why}" for d in value.differences)
    for name in VERDICTS:
        is_so = value.verdict == name
        conditions.set(name, "True" if is_so else "False", value.verdict, why if is_so else "")
    passes = value.verdict in ("Improved", "Passed")
    invalid = "; ".join(sorted({f"BenchmarkJob {r.name} is not valid" for r in facts.runs if r.verdict == "Invalid"}))
    if invalid:
        conditions.set("Degraded", "True", "InvalidRun", invalid)
        conditions.set("Passed", "False", "InvalidRun", f"{invalid}: its figures decide nothing")
    else:
        conditions.set("Passed", "True" if passes else "False", value.verdict, _summary(value))
    return {
        "verdict": value.verdict, "metric": value.metric, "interleaved": value.interleaved,
        "delta": None if value.delta is None else round(value.delta * 100, 2),
        "differences": value.differences, "files": value.files,
        "result_uri": f"{SCHEME}{value.index}", "progress_percent": 100,
    }


def _numbers(_: ComparisonFacts, view: JobView, now: datetime) -> dict[str, Any]:
    return {"progress_percent": min(99, int(view.fraction * 100))}


def _said(_: ComparisonFacts, view: JobView) -> str:
    return view.message or "the two runs are compared"


def _always(_: ComparisonFacts) -> bool:
    return True


def _is_admitted(_: ComparisonFacts, __: JobView) -> bool:
    return True


def _degraded(_: JobView) -> list[tuple[str, str]]:
    return []


LIFE: Life[BenchmarkComparison] = Life(
    request=request,
    problem=problem,
    may_begin=_always,
    goes=_always,
    is_admitted=_is_admitted,
    checked="both runs have a report",
    said=_said,
    completed=_completed,
    numbers=_numbers,
    reported=_reported,
    degraded=_degraded,
)
