"""From a key to frozen facts: the cache, the doctor, the coordinator's views, and a few reads that are remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from espalier_api.common import Endpoint, SecretKeyRef
from espalier_api.gradingjob import GradingJob
from espalier_api.meta import find_condition
from espalier_api.modelref import ServerRef, template_of
from espalier_kit.clock import Clock
from espalier_kit.errors import NotFound
from espalier_kit.execution import ModelEndpoint
from espalier_kube.cluster import (
    BENCHMARK_JOB,
    GRADING_JOB,
    JOB,
    MODEL_SERVER,
    NODE,
    POD,
    RUNTIME_CLASS,
    SECRET,
    Cluster,
    Object,
)
from espalier_kube.objects import is_owned_by, secret_bytes
from espalier_operator import reading
from espalier_operator.authority import Authority
from espalier_operator.cache import Cache
from espalier_operator.plan import answers
from espalier_operator.plan.conditions import is_terminal
from espalier_operator.plan.facts import (
    ComparedRun,
    Contender,
    CoordinatorFacts,
    Holder,
    Job,
    JobFacts,
    JudgeFacts,
    ModelServerFacts,
    Problem,
    ServerFacts,
    SourceFacts,
    Told,
    WorkerFacts,
)
from espalier_operator.plan.kinds import JOB_KINDS, fallbacks, field_of, model_refs, worker_name
from espalier_operator.plan.models import contender, macs_of, template_name
from espalier_operator.plan.sandbox import sandbox_names
from espalier_operator.plan.sidecar import GVISOR, runtime_problem
from espalier_operator.work import Work

LONG_DOWN_S = 120
"""A model server down for so long is not waited for by a job that has begun."""


class Probes(Protocol):
    """What the doctor knows of a pod: (answers, tokens per second, why not); None before the first probe."""

    def verdict(self, pod_uid: str) -> tuple[bool, float | None, str] | None: ...


class Sources(Protocol):
    """Where the digests of a job's sources come from."""

    async def resolve(self, job: Job) -> SourceFacts: ...

    def forget(self, uid: str) -> None: ...


class Observer:
    """Builds facts, and remembers what was told."""

    def __init__(
        self, *, cache: Cache, cluster: Cluster, work: Work, authority: Authority, sources: Sources, probes: Probes,
        clock: Clock,
    ) -> None:
        self._cache, self._cluster, self._work = cache, cluster, work
        self._authority, self._sources, self._probes, self._clock = authority, sources, probes, clock
        self._told: dict[str, Told] = {}
        self._restarts: dict[str, dict[str, int]] = {}
        self._leaving: set[str] = set()
        self._takeover = ""
        self._since = clock.now()

    def took_over(self, said: str) -> None:
        """This process took the Lease from another: jobs that ran before shall be told."""
        self._takeover, self._since = said, self._clock.now()

    async def job(self, kind: str, name: str, namespace: str) -> JobFacts[Any] | None:
        """Facts about a job of that kind, or None when it is gone or going."""
        obj = self._cache.get(JOB_KINDS[kind], name, namespace)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return None
        job = reading.job(obj)
        live = self._cache.get(JOB, worker_name(name, kind), namespace)
        uid = job.metadata.uid
        worker = reading.worker(live) if live is not None and is_owned_by(live, uid) else None
        view = self._work.view(uid)
        judges, fallback, problem = await self._judges(job)
        nodes, now = tuple(self._cache.all(NODE)), self._clock.now()
        sandboxes = tuple(self._sandboxes(job))
        sandbox = answers.chosen(job, nodes)
        pods = tuple(self._worker_pods(job, {live.uid for live in (worker, *sandboxes) if live is not None}))
        return JobFacts(
            obj=obj, job=job, ca_pem=self._authority.ca_pem, worker=worker, sandboxes=sandboxes,
            sandbox=sandbox,
            sandbox_problem=None if view is not None else await self._sandbox_problem(job, sandbox, nodes),
            lost_pods=tuple(lost for pod in pods if (lost := reading.lost_pod(pod)) is not None),
            stranded_pods=reading.stranded_pods(pods, reading.away_nodes(nodes, now), now),
            judges=judges, fallback=fallback, reference_problem=problem,
            simulated_nodes=reading.simulated_nodes(nodes), macs=reading.macs(nodes),
            holders=tuple(self._holders(uid)), contenders=tuple(self._contenders(uid)),
            sources=await self._digests(job, is_handed_over=view is not None),
            runs=tuple(self._compared_runs(obj)),
            coordinator=CoordinatorFacts(self._work.is_synced, self._work.away_s, view, self._work.pushed(uid)),
            told=self._told.get(uid, Told()), takeover=self._takeover if self._ran_before(job) else "",
        )

    async def model_server(self, name: str, namespace: str) -> ModelServerFacts | None:
        """Facts about a model server, or None when it is gone or going."""
        obj = self._cache.get(MODEL_SERVER, name, namespace)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return None
        pods = [p for p in self._cache.all(POD, namespace) if reading.belongs(p, "ModelServer", name)]
        now = self._clock.now()
        away = reading.away_nodes(tuple(self._cache.all(NODE)), now)
        facts = (reading.server_pod(p, away, now, self._probes.verdict(p["metadata"]["uid"])) for p in pods)
        known = self._restarts.get(obj["metadata"]["uid"], {})
        marked = (replace(p, has_restarted=p.restarts > known.get(p.uid, p.restarts)) for p in facts if p)
        return ModelServerFacts(
            obj, reading.model_server(obj), self._authority.ca_pem, pods=tuple(sorted(marked, key=lambda p: p.name))
        )

    def mark_leaving(self, namespace: str, *, is_leaving: bool) -> None:
        """A namespace that is being deleted takes nothing new: its jobs no longer contend for Macs."""
        (self._leaving.add if is_leaving else self._leaving.discard)(namespace)

    def told(self, facts: JobFacts[Job]) -> None:
        """Remember what was told about a job."""
        view, old = facts.coordinator.view, facts.told
        self._told[facts.job.metadata.uid] = Told(
            epoch=view.epoch if view is not None else old.epoch,
            lost_leases=view.lost_leases if view is not None else old.lost_leases,
            takeover=facts.takeover if view is not None else old.takeover,
        )

    def told_server(self, facts: ModelServerFacts) -> None:
        """Remember what was told about a model server."""
        self._restarts[facts.server.metadata.uid] = {pod.uid: pod.restarts for pod in facts.pods}

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._told.pop(uid, None)
        self._restarts.pop(uid, None)
        self._sources.forget(uid)
        self._authority.forget_server(uid)

    def _ran_before(self, job: Job) -> bool:
        return reading.is_running_job(job) and job.status.start_time is not None and job.status.start_time < self._since

    async def _digests(self, job: Job, *, is_handed_over: bool) -> SourceFacts:
        if is_handed_over or job.spec.run_policy.suspend or is_terminal(job.status.conditions):
            return SourceFacts()
        return await self._sources.resolve(job)

    def _worker_pods(self, job: Job, batch_uids: set[str]) -> Iterator[Object]:
        for pod in self._cache.all(POD, job.metadata.namespace):
            if reading.belongs(pod, job.kind, job.metadata.name) and any(is_owned_by(pod, uid) for uid in batch_uids):
                yield pod

    def _sandboxes(self, job: Job) -> Iterator[WorkerFacts]:
        """Jobs of one-shot pods."""
        if isinstance(job, GradingJob):
            for name in sandbox_names(job.metadata.name):
                live = self._cache.get(JOB, name, job.metadata.namespace)
                if live is not None and is_owned_by(live, job.metadata.uid):
                    yield reading.worker(live)

    async def _sandbox_problem(self, job: Job, chosen: str | None, nodes: tuple[Object, ...]) -> Problem | None:
        sandbox = job.spec.execution.sandbox if isinstance(job, GradingJob) else chosen
        if sandbox is None and answers.waits_for_nodes(job):
            return answers.NOBODY_KNOWS
        runtime_class = None
        if sandbox == "gvisor":
            with suppress(NotFound):
                runtime_class = await self._cluster.get(RUNTIME_CLASS, GVISOR)
        return runtime_problem(sandbox, nodes, runtime_class)

    def _compared_runs(self, obj: Object) -> Iterator[ComparedRun]:
        if obj["kind"] != "BenchmarkComparison":
            return
        for name in reading.compared_runs(obj):
            yield reading.compared_run(name, self._cache.get(BENCHMARK_JOB, name, obj["metadata"]["namespace"]))

    def _holders(self, uid: str) -> Iterator[Holder]:
        """ModelServers of others that have, or will have, Macs."""
        for obj in self._cache.all(MODEL_SERVER):
            if is_owned_by(obj, uid) or "deletionTimestamp" in obj["metadata"]:
                continue
            count = macs_of(reading.model_server(obj).spec)
            if count:
                yield Holder(reading.holder_label(obj), count)

    def _contenders(self, uid: str) -> Iterator[Contender]:
        """Other jobs that want Macs and have none yet."""
        owners = {
            ref["uid"] for o in self._cache.all(MODEL_SERVER) for ref in o["metadata"].get("ownerReferences") or ()
        }
        for obj in (*self._cache.all(GRADING_JOB), *self._cache.all(BENCHMARK_JOB)):
            if obj["metadata"]["uid"] in owners | {uid} or reading.is_out_of_contest(obj):
                continue
            if obj["metadata"]["namespace"] in self._leaving:
                continue
            waiting = contender(reading.job(obj))
            if waiting.need:
                yield waiting

    async def _judges(
        self, job: Job
    ) -> tuple[tuple[JudgeFacts, ...], tuple[ModelEndpoint, ...], Problem | None]:
        judges: list[JudgeFacts] = []
        problems: list[Problem] = []
        for role, ref in model_refs(job):
            facts, problem = await self._judge(job, role, ref)
            judges.append(facts)
            problems += [problem] if problem else []
        fallback: list[ModelEndpoint] = []
        for endpoint in fallbacks(job):
            made, problem = await self._external(job.metadata.namespace, "fallback", endpoint)
            fallback += [made] if made else []
            problems += [problem] if problem else []
        return tuple(judges), tuple(fallback), problems[0] if problems else None

    async def _judge(self, job: Job, role: str, ref: ServerRef) -> tuple[JudgeFacts, Problem | None]:
        if ref.endpoint is not None:
            made, problem = await self._external(job.metadata.namespace, role, ref.endpoint)
            return JudgeFacts(role, endpoints=(made,) if made else ()), problem
        name = ref.model_server or template_name(job.metadata.name, role)
        obj = self._cache.get(MODEL_SERVER, name, job.metadata.namespace)
        if obj is None:
            said = f"{field_of(job, role)}: there is no ModelServer {name} in this namespace"
            missing = Problem("ModelServerNotFound", said)
            return JudgeFacts(role, ServerFacts(name, is_ours=template_of(ref) is not None)), (
                missing if ref.model_server else None
            )
        served = [model.name for model in reading.model_server(obj).spec.models]
        said = f"{field_of(job, role)}.model: ModelServer {name} serves {', '.join(served)}, not {ref.model}"
        problem = Problem("ModelNotFound", said) if ref.model and ref.model not in served else None
        return JudgeFacts(role, await self._server(job, role, ref, obj)), problem

    async def _server(self, job: Job, role: str, ref: ServerRef, obj: Object) -> ServerFacts:
        server, now = reading.model_server(obj), self._clock.now()
        model = ref.model or server.spec.models[0].name
        ready = find_condition(server.status.conditions, "Ready")
        is_ready = ready is not None and ready.status == "True"
        is_ours = template_of(ref) is not None and is_owned_by(obj, job.metadata.uid)
        known = server.status.endpoints or ()
        api_key = await self._authority.ensure_server(obj) if known else ""
        endpoints = tuple(
            ModelEndpoint(
                role=role, url=e.url, model=model, name=f"{e.node}/{model}", node=e.node, ready=e.ready,
                server_name=e.server_name, ca_pem=self._authority.ca_pem, api_key=api_key,
            )
            for e in known
        )
        down_since = None if ready is None or is_ready else ready.last_transition_time
        return ServerFacts(
            name=server.metadata.name, exists=True, uid=server.metadata.uid, is_ours=is_ours,
            is_going="deletionTimestamp" in obj["metadata"], ready=is_ready, replicas=server.spec.replicas,
            is_long_down=_long_ago(down_since, now),
            why_not_ready="" if ready is None or is_ready else ready.message, endpoints=endpoints,
        )

    async def _external(
        self, namespace: str, role: str, endpoint: Endpoint
    ) -> tuple[ModelEndpoint | None, Problem | None]:
        api_key, problem = await self._secret(namespace, endpoint.api_key_secret_ref)
        ca_pem, ca_problem = await self._secret(namespace, endpoint.ca_secret_ref)
        if problem or ca_problem:
            return None, problem or ca_problem
        made = ModelEndpoint(
            role=role, url=endpoint.url, model=endpoint.model, name=f"{endpoint.url}/{endpoint.model}", api_key=api_key,
            ca_pem=ca_pem,
        )
        return made, None

    async def _secret(self, namespace: str, ref: SecretKeyRef | None) -> tuple[str | None, Problem | None]:
        if ref is None:
            return None, None
        try:
            found = secret_bytes(await self._cluster.get(SECRET, ref.name, namespace), ref.key)
        except NotFound:
            found = None
        if found is None:
            return None, Problem("SecretNotFound", f"Secret {ref.name} does not exist or lacks the key {ref.key}")
        return found.decode().strip(), None


def _long_ago(since: datetime | None, now: datetime) -> bool:
    return since is not None and now - since > timedelta(seconds=LONG_DOWN_S)
