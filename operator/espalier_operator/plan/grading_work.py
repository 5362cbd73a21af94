"""The work that a GradingJob wishes at the coordinator: hand over, pause, go on, new endpoints, cancel."""

from __future__ import annotations

from espalier_api.modelref import ModelRef
from espalier_api.tasks import GradingSettings, JudgeSettings
from espalier_kit.execution import TaskSpec
from espalier_operator.plan.ending import ADMIT
from espalier_operator.plan.facts import GradingJobFacts
from espalier_operator.plan.models import endpoints, endpoints_digest, is_answering, shares_hardware
from espalier_operator.plan.outcome import WorkAction
from espalier_rpc.views import JobRequest, JobUpdate

ADMIT_KEY = "admit"


def is_judged(facts: GradingJobFacts) -> bool:
    """Whether each judge has a server that answers."""
    return all(is_answering(judge) for judge in facts.judges)


def is_idle(facts: GradingJobFacts) -> bool:
    """Whether no task runs, as far as we can know."""
    view = facts.coordinator.view
    if view is None or facts.coordinator.away_s is not None or view.is_final:
        return True
    return view.state == "suspended" and view.counts.running == 0


def stopping_work(facts: GradingJobFacts, *, cancel: bool = False) -> tuple[WorkAction, ...]:
    """Pause or cancel what the coordinator has of this job."""
    view = facts.coordinator.view
    if view is None or view.is_final or view.state == "cancelling":
        return ()
    if cancel:
        return (JobUpdate(view.uid, cancel=True),)
    return (JobUpdate(view.uid, suspended=True),) if view.state == "running" else ()


def running_work(facts: GradingJobFacts) -> tuple[WorkAction, ...]:
    """Hand the job over once both judges answer; later keep endpoints, priority and pausing as they should be.

    A running job goes on while any server answers (the judges fail over); with none left it pauses, and starts again
    when both answer, or when the missing one has been away so long that waiting for it helps nobody.
    """
    view = facts.coordinator.view
    if view is None:
        return (_submission(facts),) if is_judged(facts) else ()
    if view.is_final or view.state == "cancelling":
        return ()
    wished = endpoints(facts)
    goes = _some_answer(facts) if view.state == "running" else is_judged(facts) or _waited_enough(facts)
    priority = facts.job.spec.run_policy.priority
    update = JobUpdate(
        view.uid,
        priority=priority if priority != view.priority else None,
        suspended=None if goes == (view.state == "running") else not goes,
        endpoints=wished if endpoints_digest(wished) != facts.coordinator.pushed else None,
    )
    return () if update == JobUpdate(view.uid) else (update,)


def _submission(facts: GradingJobFacts) -> JobRequest:
    job, policy = facts.job, facts.job.spec.run_policy
    settings = GradingSettings(
        assignment=facts.sources.assignment, submissions=facts.sources.submissions, scale_points=job.spec.scale.points,
        code=_judge(job.spec.models.code), feedback=_judge(job.spec.models.feedback), execution=job.spec.execution,
        targets=job.spec.performance.targets, shared_hardware=shares_hardware(facts),
    )
    return JobRequest(
        uid=job.metadata.uid, namespace=job.metadata.namespace, name=job.metadata.name, kind="GradingJob",
        tasks=(TaskSpec(key=ADMIT_KEY, type=ADMIT, payload=settings.wire()),), endpoints=endpoints(facts),
        priority=policy.priority, retries=policy.retries, task_timeout_s=float(policy.task_timeout_seconds),
        pool=job.spec.workers.pool or "",
    )


def _judge(ref: ModelRef) -> JudgeSettings:
    return JudgeSettings(model=ref.model, max_tokens=ref.max_tokens, temperature=ref.temperature, seed=ref.seed)


def _some_answer(facts: GradingJobFacts) -> bool:
    return any(e.ready for e in endpoints(facts))


def _waited_enough(facts: GradingJobFacts) -> bool:
    missing = [judge for judge in facts.judges if not is_answering(judge)]
    return _some_answer(facts) and all(judge.server is not None and judge.server.is_long_down for judge in missing)
