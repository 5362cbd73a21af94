"""The work that a GradingJob hands over, and when it may run: while judges answer."""

from __future__ import annotations

from espalier_api.modelref import ModelRef
from espalier_api.tasks import TALLY_REACHED, GradingSettings, Judge, JudgeSettings, ReachTask, sandbox_tags
from espalier_kit.execution import Dependency, TaskSpec
from espalier_operator.plan.facts import GradingJobFacts
from espalier_operator.plan.grading_ending import ADMIT, is_admitted
from espalier_operator.plan.models import endpoints, is_answering, shares_hardware
from espalier_rpc.views import JobRequest, JobView

ADMIT_KEY = "admit"
REACH, REACH_KEY = "grading.reach", "reach"
FOR_EVER = 1_000_000
"""Retries of a task that waits for somebody else's server: it goes on by itself, whenever that comes."""


def is_judged(facts: GradingJobFacts) -> bool:
    """Whether each judge has a server that answers."""
    return all(is_answering(judge) for judge in facts.judges)


def goes(facts: GradingJobFacts) -> bool:
    """A running job goes on while any server answers (the judges fail over); with none left it pauses.

    It starts again when both answer, or when the missing one has been away so long that waiting for it helps nobody.
    """
    view = facts.coordinator.view
    if view is not None and view.state == "running":
        return _some_answer(facts)
    return is_judged(facts) or _waited_enough(facts)


def submission(facts: GradingJobFacts) -> JobRequest:
    """`grading.admit` knows what the other tasks are; before it, servers outside the platform are tried."""
    job, policy = facts.job, facts.job.spec.run_policy
    digests = facts.sources.digests
    settings = GradingSettings(
        assignment=digests["assignment"], submissions=digests["submissions"], scale_points=job.spec.scale.points,
        code=_judge(job.spec.models.code), feedback=_judge(job.spec.models.feedback), execution=job.spec.execution,
        targets=job.spec.performance.targets, shared_hardware=shares_hardware(facts),
    )
    reach = _reach(facts)
    admit = TaskSpec(
        key=ADMIT_KEY, type=ADMIT, payload=settings.wire(), tags=sandbox_tags(job.spec.execution.sandbox),
        depends_on=tuple(Dependency(task.key) for task in reach),
    )
    return JobRequest(
        uid=job.metadata.uid, namespace=job.metadata.namespace, name=job.metadata.name, kind="GradingJob",
        tasks=(*reach, admit), endpoints=endpoints(facts),
        priority=policy.priority, retries=policy.retries, task_timeout_s=float(policy.task_timeout_seconds),
        pool=job.spec.workers.pool or "",
    )


def unreached(facts: GradingJobFacts, view: JobView) -> str:
    """What keeps the judges' endpoints from being asked, as the task that tries them says; empty once they can be."""
    if not _outside(facts) or is_admitted(view) or TALLY_REACHED in view.tallies:
        return ""
    return view.message


def _reach(facts: GradingJobFacts) -> tuple[TaskSpec, ...]:
    outside = _outside(facts)
    payload = ReachTask(judges=outside).wire()
    return (TaskSpec(key=REACH_KEY, type=REACH, payload=payload, retries=FOR_EVER),) if outside else ()


def _outside(facts: GradingJobFacts) -> tuple[Judge, ...]:
    models = facts.job.spec.models
    judges: tuple[tuple[Judge, ModelRef], ...] = (("code", models.code), ("feedback", models.feedback))
    return tuple(judge for judge, ref in judges if ref.endpoint is not None)


def _judge(ref: ModelRef) -> JudgeSettings:
    return JudgeSettings(model=ref.model, max_tokens=ref.max_tokens, temperature=ref.temperature, seed=ref.seed)


def _some_answer(facts: GradingJobFacts) -> bool:
    return any(e.ready for e in endpoints(facts))


def _waited_enough(facts: GradingJobFacts) -> bool:
    missing = [judge for judge in facts.judges if not is_answering(judge)]
    return _some_answer(facts) and all(judge.server is not None and judge.server.is_long_down for judge in missing)
