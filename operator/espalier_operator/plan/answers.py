"""Answers that run: whether a job has some, and which sandbox confines them. Pure.

What the spec leaves open is decided once, by the nodes that are there, and stands in the status from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from espalier_api.benchmarkjob import BenchmarkJob, WorkflowTask
from espalier_api.benchmarktasks import EVALUATION, AnswerSandbox, runs_answers
from espalier_kube.cluster import Object
from espalier_operator.plan.facts import Job, Problem
from espalier_operator.plan.sidecar import FIELD, is_linux, runs_containers

ANSWER_BYTES = 2**30
"""Memory of one answer (`espalier_benchmark.packs.confined`)."""
NOBODY_KNOWS = Problem(
    "SandboxUnavailable", f"no Linux node is there yet: it decides how answers are confined, unless {FIELD} does"
)


def has_answers(job: BenchmarkJob) -> bool:
    """Whether some answers of it run. What a template holds nobody here knows: its jobs name the sandbox."""
    spec = job.spec
    packs = spec.accuracy.packs if spec.accuracy is not None else ()
    return any(runs_answers(pack.name) for pack in packs) or any(map(runs_task, spec.tasks)) or _named(job) is not None


def runs_task(task: WorkflowTask) -> bool:
    """Whether a workflow's task runs answers."""
    return task.type == EVALUATION and runs_answers(str((task.payload or {}).get("pack", "")))


def chosen(job: Job, nodes: Iterable[Object]) -> AnswerSandbox | None:
    """What confines the job's answers; None where none run, or where no node is there that could decide it."""
    if not isinstance(job, BenchmarkJob) or not has_answers(job) or job.spec.generators.placement == "mlx":
        return None
    if (known := _named(job) or job.status.sandbox) is not None:
        return cast(AnswerSandbox, known)
    if job.spec.generators.pool is not None:
        return "bubblewrap"
    linux = [node for node in nodes if is_linux(node)]
    if any(map(runs_containers, linux)):
        return "container"
    return "bubblewrap" if linux else None


def waits_for_nodes(job: Job) -> bool:
    """Whether a job for which nothing was `chosen` needs a node that decides it."""
    return isinstance(job, BenchmarkJob) and has_answers(job) and job.spec.generators.placement == "linux"


def _named(job: BenchmarkJob) -> AnswerSandbox | None:
    return job.spec.execution.sandbox if job.spec.execution is not None else None
