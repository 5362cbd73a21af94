"""The work that a BenchmarkJob hands over: `benchmark.admit`, which knows what the others are, or tasks as written."""

from __future__ import annotations

from espalier_api.benchmarkjob import BenchmarkJob, BenchmarkJobSpec, WorkflowTask
from espalier_api.benchmarkload import Pack, Synthetic
from espalier_api.benchmarktasks import (
    ADMIT,
    JUDGE_ROLE,
    AccuracySettings,
    AnswerSandbox,
    AskSettings,
    BenchmarkSettings,
    DatasetSettings,
    PackSettings,
    target_role,
)
from espalier_api.modelref import ServerRef
from espalier_api.tasks import sandbox_tags
from espalier_kit.execution import Dependency, TaskSpec, When
from espalier_operator.plan.answers import runs_task
from espalier_operator.plan.facts import BenchmarkJobFacts
from espalier_operator.plan.kinds import named_targets
from espalier_operator.plan.models import endpoints, is_whole
from espalier_rpc.views import JobRequest

ADMIT_KEY = "admit"


def is_measured(job: BenchmarkJob) -> bool:
    """Whether it asks targets itself; otherwise it is a workflow of tasks."""
    return job.spec.load is not None or job.spec.accuracy is not None


def may_begin(facts: BenchmarkJobFacts) -> bool:
    """Once every replica of every target is ready: a run never begins against half a server."""
    return all(is_whole(judge) for judge in facts.judges)


def goes(facts: BenchmarkJobFacts) -> bool:
    """What runs, runs on: a target that breaks off is a finding. What waits, waits for targets and for generators.

    All generators must be connected before the first task: they start together.
    """
    view = facts.coordinator.view
    if view is not None and view.state == "running":
        return True
    return may_begin(facts) and (view is None or view.workers >= _gang(facts.job.spec))


def submission(facts: BenchmarkJobFacts) -> JobRequest:
    """The job as the coordinator takes it; paused where generators have to find together first."""
    job, policy, template = facts.job, facts.job.spec.run_policy, facts.job.spec.template_ref
    return JobRequest(
        uid=job.metadata.uid, namespace=job.metadata.namespace, name=job.metadata.name, kind=job.kind,
        tasks=_tasks(facts), endpoints=endpoints(facts), priority=policy.priority, retries=policy.retries,
        task_timeout_s=float(policy.task_timeout_seconds), suspended=_gang(job.spec) > 1,
        pool=job.spec.generators.pool or "", tags=job.spec.tags,
        template=template.name if template is not None else "",
        parameters={p.name: p.value for p in template.parameters} if template is not None else {},
    )


def _gang(spec: BenchmarkJobSpec) -> int:
    """How many workers must be there before anything runs."""
    return spec.generators.replicas if spec.load is not None else 0


def _tasks(facts: BenchmarkJobFacts) -> tuple[TaskSpec, ...]:
    if is_measured(facts.job):
        return (TaskSpec(
            key=ADMIT_KEY, type=ADMIT, payload=settings(facts).wire(), tags=sandbox_tags(facts.sandbox)
        ),)
    return tuple(_task(task, facts.sandbox) for task in facts.job.spec.tasks)


def _task(task: WorkflowTask, sandbox: AnswerSandbox | None) -> TaskSpec:
    runs = sandbox is not None and runs_task(task)
    return TaskSpec(
        key=task.name, type=task.type, payload={**(task.payload or {}), **({"sandbox": sandbox} if runs else {})},
        depends_on=tuple(Dependency(edge.task, When(edge.when)) for edge in task.depends_on),
        timeout_s=task.timeout_seconds, retries=task.retries,
        tags=(*task.required_tags, *(sandbox_tags(sandbox) if runs else ())), resources=task.resources or {},
        cache="" if task.cache == "none" else task.cache,
    )


def settings(facts: BenchmarkJobFacts) -> BenchmarkSettings:
    """The payload of `benchmark.admit`."""
    spec, digests = facts.job.spec, facts.sources.digests
    targets = tuple(
        _ask(target_role(number), name, ref).model_copy(update={"price": ref.price})
        for number, (name, ref) in enumerate(named_targets(facts.job))
    )
    return BenchmarkSettings(
        job=facts.job.metadata.name, targets=targets, load=spec.load, trace=digests.get("load.trace.source"),
        dataset=_dataset(facts), accuracy=_accuracy(facts), slo=spec.slo, limits=spec.limits,
        generators=spec.generators.replicas, cache=spec.cache != "none", placement=spec.generators.placement,
        sandbox=facts.sandbox or "bubblewrap",
    )


def _dataset(facts: BenchmarkJobFacts) -> DatasetSettings:
    dataset = facts.job.spec.dataset
    if dataset is None:
        return DatasetSettings(synthetic=Synthetic())
    if dataset.file is None and dataset.pack is None:
        return DatasetSettings(synthetic=dataset.synthetic or Synthetic())
    return DatasetSettings(file=facts.sources.digests.get("dataset.file"), pack=dataset.pack)


def _accuracy(facts: BenchmarkJobFacts) -> AccuracySettings | None:
    accuracy, digests = facts.job.spec.accuracy, facts.sources.digests
    if accuracy is None:
        return None
    return AccuracySettings(
        packs=tuple(
            _pack(pack, digests.get(f"accuracy.packs[{number}].file")) for number, pack in enumerate(accuracy.packs)
        ),
        evaluators=accuracy.evaluators, texts=digests.get("accuracy.texts"), concurrency=accuracy.concurrency,
        judge=_ask(JUDGE_ROLE, JUDGE_ROLE, accuracy.judge) if accuracy.judge is not None else None,
    )


def _pack(pack: Pack, digest: str | None) -> PackSettings:
    return PackSettings(name=pack.name, file=digest, items=pack.items, seed=pack.seed)


def _ask(role: str, name: str, ref: ServerRef) -> AskSettings:
    return AskSettings(
        role=role, name=name, model=ref.model, max_tokens=ref.max_tokens, temperature=ref.temperature, seed=ref.seed
    )
