"""A job's judges: ModelServers from templates, the endpoints that are pushed to the coordinator, who is away."""

from __future__ import annotations

from espalier_api.gradingjob import GradingJob
from espalier_api.modelref import ModelRef
from espalier_api.modelserver import ModelServerSpec
from espalier_kit.digest import value_digest
from espalier_kit.execution import ModelEndpoint
from espalier_kube.cluster import MODEL_SERVER, Object
from espalier_kube.objects import metadata, owner_labels, typed
from espalier_operator.plan.facts import GradingJobFacts, JudgeFacts, ServerFacts
from espalier_operator.plan.outcome import Deletion

ROLES = ("code", "feedback")


def judge_refs(job: GradingJob) -> tuple[tuple[str, ModelRef], ...]:
    """Both judges with their roles."""
    return tuple(zip(ROLES, (job.spec.models.code, job.spec.models.feedback), strict=True))


def template_name(job: str, role: str) -> str:
    """The name of the ModelServer that a job puts on the Macs for one judge."""
    return f"{job}-{role}"


def macs_needed(job: GradingJob) -> int:
    """Macs that the job's templates occupy."""
    return sum(macs_of(ref.template) for _, ref in judge_refs(job) if ref.template is not None)


def macs_of(spec: ModelServerSpec) -> int:
    """One MLX process per Mac and replica."""
    return spec.replicas if spec.placement == "mlx" else 0


def template_children(facts: GradingJobFacts) -> tuple[Object, ...]:
    """The ModelServers that the job itself wishes."""
    name, namespace = facts.job.metadata.name, facts.job.metadata.namespace
    labels = owner_labels("model-server", kind="GradingJob", name=name)
    return tuple(
        typed(
            MODEL_SERVER, metadata(template_name(name, role), namespace, labels=labels, owner=facts.obj),
            spec=ref.template.wire(),
        )
        for role, ref in judge_refs(facts.job)
        if ref.template is not None
    )


def template_deletions(facts: GradingJobFacts) -> tuple[Deletion, ...]:
    """The job's own ModelServers that still stand."""
    namespace = facts.job.metadata.namespace
    return tuple(
        Deletion(MODEL_SERVER, s.name, namespace, s.uid) for s in own_servers(facts) if s.exists and not s.is_going
    )


def own_servers(facts: GradingJobFacts) -> tuple[ServerFacts, ...]:
    """ModelServers made from the job's templates."""
    return tuple(j.server for j in facts.judges if j.server is not None and j.server.is_ours)


def endpoints(facts: GradingJobFacts) -> tuple[ModelEndpoint, ...]:
    """All endpoints of the job by role, ready or not, the fallback last."""
    return (*(e for judge in facts.judges for e in judge.all_endpoints), *facts.fallback)


def endpoints_digest(wished: tuple[ModelEndpoint, ...]) -> str:
    """Changes whenever a worker would have to know."""
    return value_digest({"endpoints": [
        [e.role, e.url, e.model, e.name, e.node, e.ready, e.server_name, e.ca_pem, e.api_key] for e in wished
    ]})


def is_answering(judge: JudgeFacts) -> bool:
    """Whether some endpoint of this judge is ready."""
    return any(e.ready for e in judge.all_endpoints)


def servers_down(facts: GradingJobFacts) -> tuple[str, ...]:
    """A clause for each judge whose own endpoints do not all answer."""
    return tuple(_down(judge) for judge in facts.judges if not is_answering(judge))


def _down(judge: JudgeFacts) -> str:
    if judge.server is None:
        return f"the {judge.role} judge's endpoint does not answer"
    why = f" ({judge.server.why_not_ready})" if judge.server.why_not_ready else ""
    return f"ModelServer {judge.server.name} of the {judge.role} judge does not answer{why}"


def shares_hardware(facts: GradingJobFacts) -> bool:
    """Whether the judges' servers run on simulated Macs, which share one machine's cores."""
    nodes = {e.node for judge in facts.judges for e in judge.all_endpoints if e.node}
    return bool(nodes) and nodes <= facts.simulated_nodes
