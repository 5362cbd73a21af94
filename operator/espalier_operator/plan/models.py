"""A job's models: ModelServers from templates, the endpoints that are pushed to the coordinator, who is away."""

from __future__ import annotations

from espalier_api.modelref import template_of
from espalier_api.modelserver import ModelServerSpec
from espalier_kit.digest import value_digest
from espalier_kit.execution import ModelEndpoint
from espalier_kube.cluster import MODEL_SERVER, Object
from espalier_kube.objects import metadata, owner_labels, typed
from espalier_operator.plan.facts import Contender, Job, JobFacts, JudgeFacts, ServerFacts
from espalier_operator.plan.kinds import model_refs
from espalier_operator.plan.outcome import Deletion

_JUDGES = ("code", "feedback", "judge")


def template_name(job: str, role: str) -> str:
    """The name of the ModelServer that a job puts on the Macs for one role."""
    return f"{job}-{role}"


def macs_needed(job: Job) -> int:
    """Macs that the job's templates occupy."""
    return sum(macs_of(template) for _, ref in model_refs(job) if (template := template_of(ref)) is not None)


def contender(job: Job) -> Contender:
    """The job's place among those that want Macs."""
    meta, policy = job.metadata, job.spec.run_policy
    assert meta.creation_timestamp is not None, "the API server sets it"
    return Contender(
        -policy.priority, meta.creation_timestamp, meta.namespace, meta.name, macs_needed(job), kind=job.kind
    )


def macs_of(spec: ModelServerSpec) -> int:
    """One MLX process per Mac and replica."""
    return spec.replicas if spec.placement == "mlx" else 0


def template_children(facts: JobFacts[Job]) -> tuple[Object, ...]:
    """The ModelServers that the job itself wishes."""
    name, namespace = facts.job.metadata.name, facts.job.metadata.namespace
    labels = owner_labels("model-server", kind=facts.job.kind, name=name)
    return tuple(
        typed(
            MODEL_SERVER, metadata(template_name(name, role), namespace, labels=labels, owner=facts.obj),
            spec=template.wire(),
        )
        for role, ref in model_refs(facts.job)
        if (template := template_of(ref)) is not None
    )


def template_deletions(facts: JobFacts[Job]) -> tuple[Deletion, ...]:
    """The job's own ModelServers that still stand."""
    namespace = facts.job.metadata.namespace
    return tuple(
        Deletion(MODEL_SERVER, s.name, namespace, s.uid) for s in own_servers(facts) if s.exists and not s.is_going
    )


def own_servers(facts: JobFacts[Job]) -> tuple[ServerFacts, ...]:
    """ModelServers made from the job's templates."""
    return tuple(j.server for j in facts.judges if j.server is not None and j.server.is_ours)


def endpoints(facts: JobFacts[Job]) -> tuple[ModelEndpoint, ...]:
    """All endpoints of the job by role, ready or not, the fallback last."""
    return (*(e for judge in facts.judges for e in judge.all_endpoints), *facts.fallback)


def endpoints_digest(wished: tuple[ModelEndpoint, ...]) -> str:
    """Changes whenever a worker would have to know."""
    return value_digest({"endpoints": [
        [e.role, e.url, e.model, e.name, e.node, e.ready, e.server_name, e.ca_pem, e.api_key] for e in wished
    ]})


def is_answering(judge: JudgeFacts) -> bool:
    """Whether some endpoint of this role is ready."""
    return any(e.ready for e in judge.all_endpoints)


def servers_down(facts: JobFacts[Job]) -> tuple[str, ...]:
    """A clause for each role that nobody answers for."""
    return tuple(_down(judge) for judge in facts.judges if not is_answering(judge))


def servers_partly(facts: JobFacts[Job]) -> tuple[str, ...]:
    """A clause for each role whose servers are not all ready."""
    return tuple(
        f"{sum(e.ready for e in judge.all_endpoints)} of {_wished(judge)} servers of {_called(judge.role)} are ready"
        for judge in facts.judges
        if not is_whole(judge)
    )


def is_whole(judge: JudgeFacts) -> bool:
    """Whether every wished server of this role is ready."""
    ready = [e.ready for e in judge.all_endpoints]
    return bool(ready) and all(ready) and (judge.server is None or judge.server.ready)


def _wished(judge: JudgeFacts) -> int:
    return max(len(judge.all_endpoints), judge.server.replicas if judge.server is not None else 0)


def _down(judge: JudgeFacts) -> str:
    if judge.server is None:
        return f"the endpoint of {_called(judge.role)} does not answer"
    why = f" ({judge.server.why_not_ready})" if judge.server.why_not_ready else ""
    return f"ModelServer {judge.server.name} of {_called(judge.role)} does not answer{why}"


def _called(role: str) -> str:
    if role not in _JUDGES:
        return role
    return "the judge" if role == "judge" else f"the {role} judge"


def shares_hardware(facts: JobFacts[Job]) -> bool:
    """Whether the job's servers run on simulated Macs, which share one machine's cores."""
    nodes = {e.node for judge in facts.judges for e in judge.all_endpoints if e.node}
    return bool(nodes) and nodes <= facts.simulated_nodes
