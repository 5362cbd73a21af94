"""What `observe` tells and plans read: frozen facts about one object and its surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from espalier_api.benchmarkcomparison import BenchmarkComparison
from espalier_api.benchmarkjob import BenchmarkJob
from espalier_api.benchmarktasks import AnswerSandbox
from espalier_api.gradingjob import GradingJob
from espalier_api.modelserver import ModelServer
from espalier_kit.execution import ModelEndpoint
from espalier_kube.cluster import Object
from espalier_rpc.views import JobView

Job = GradingJob | BenchmarkJob | BenchmarkComparison
J_co = TypeVar("J_co", bound=Job, covariant=True)
J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person must mend before the object can go on; `reason` is one of `espalier_api.reasons`."""

    reason: str
    message: str
    is_final: bool = False
    """Whether nothing that may still happen mends it: the job ends."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """The worker Job as it is."""

    name: str
    uid: str
    workers_hash: str
    suspended: bool
    replicas: int
    active: int = 0
    is_finished: bool = False
    failure: str = ""
    """Why the Job itself failed; empty while it has not."""


@dataclass(frozen=True, slots=True)
class LostPod:
    """A worker pod that ended otherwise than well."""

    uid: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class StrandedPod:
    """A worker pod on a node that is not Ready; `away_s` is for how long."""

    uid: str
    name: str
    node: str
    away_s: float


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A ModelServer that a job asks, as it is; `exists` False where it is only wished."""

    name: str
    exists: bool = False
    uid: str = ""
    is_ours: bool = False
    is_going: bool = False
    ready: bool = False
    replicas: int = 1
    """As many as it wishes."""
    is_long_down: bool = False
    """Down for so long (`observe.LONG_DOWN_S`) that a job need not wait for it."""
    why_not_ready: str = ""
    endpoints: tuple[ModelEndpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgeFacts:
    """One role's servers (a judge's, a target's): a ModelServer (named or from a template), or fixed endpoints."""

    role: str
    server: ServerFacts | None = None
    endpoints: tuple[ModelEndpoint, ...] = ()

    @property
    def all_endpoints(self) -> tuple[ModelEndpoint, ...]:
        """Every endpoint of this role, ready or not."""
        return self.server.endpoints if self.server is not None else self.endpoints


@dataclass(frozen=True, slots=True)
class MacFacts:
    """Macs of the cluster: how many processes the Ready ones can hold, and who is away."""

    capacity: int = 0
    away: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """A ModelServer of somebody else on the Macs."""

    label: str
    """Who is named to a person, e.g. `GradingJob course/week-1`."""
    macs: int


@dataclass(frozen=True, slots=True, order=True)
class Contender:
    """A job that wants Macs, in the order in which jobs get them: priority, age, name."""

    minus_priority: int
    created: datetime
    namespace: str
    name: str
    need: int = field(compare=False)
    kind: str = "GradingJob"


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Digests of a job's sources by field, or why there is none (yet)."""

    digests: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What this process has told already about a job, so that Events do not repeat; None before the first look."""

    epoch: str | None = None
    lost_leases: int | None = None
    takeover: str = ""


@dataclass(frozen=True, slots=True)
class CoordinatorFacts:
    """The coordinator, as far as this job is concerned. `away_s` is how long it has not answered (None: it does)."""

    is_synced: bool = False
    away_s: float | None = None
    view: JobView | None = None
    pushed: str = ""
    """Digest of the endpoints it last got from us; empty if none."""


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A BenchmarkJob that a comparison names, as it is now."""

    name: str
    exists: bool = False
    has_ended: bool = False
    phase: str = ""
    index: str = ""
    """sha256 of its report's index; empty where it has none (yet)."""
    targets: tuple[str, ...] = ()
    """Names of its targets, in order."""
    verdict: str = ""
    """Valid or Invalid, once it is known."""


@dataclass(frozen=True, slots=True)
class JobFacts(Generic[J_co]):
    """Everything that the plan of a job decides from, of whatever kind."""

    obj: Object
    job: J_co
    ca_pem: str
    worker: WorkerFacts | None = None
    sandboxes: tuple[WorkerFacts, ...] = ()
    """Jobs of one-shot pods (`plan.sandbox`) that exist."""
    sandbox: AnswerSandbox | None = None
    """Of a benchmark: what confines its answers that run (`plan.answers`)."""
    sandbox_problem: Problem | None = None
    """Why no node could run pods with the job's sandbox in them, where it wants some."""
    lost_pods: tuple[LostPod, ...] = ()
    stranded_pods: tuple[StrandedPod, ...] = ()
    judges: tuple[JudgeFacts, ...] = ()
    fallback: tuple[ModelEndpoint, ...] = ()
    simulated_nodes: frozenset[str] = frozenset()
    macs: MacFacts = MacFacts()
    holders: tuple[Holder, ...] = ()
    contenders: tuple[Contender, ...] = ()
    """Other jobs that wait for Macs."""
    sources: SourceFacts = SourceFacts()
    reference_problem: Problem | None = None
    runs: tuple[ComparedRun, ...] = ()
    """Of a comparison: baseline and candidate."""
    coordinator: CoordinatorFacts = CoordinatorFacts()
    told: Told = Told()
    takeover: str = ""
    """Who held the operator's Lease before this process, if somebody else did."""

    @property
    def workers_failure(self) -> str:
        """Why a Job of workers failed for good; empty while none has."""
        found = (self.worker,) if self.worker is not None else ()
        return next((live.failure for live in (*found, *self.sandboxes) if live.failure), "")


GradingJobFacts = JobFacts[GradingJob]
BenchmarkJobFacts = JobFacts[BenchmarkJob]
ComparisonFacts = JobFacts[BenchmarkComparison]


@dataclass(frozen=True, slots=True)
class ServerPod:
    """One pod of a ModelServer and what the doctor's probe says of it."""

    name: str
    uid: str
    node: str
    ip: str
    is_going: bool
    node_away_s: float | None = None
    """How long the node has not been Ready; None while it is."""
    probe: bool | None = None
    """The doctor's verdict; None before the first probe."""
    tokens_per_second: float | None = None
    why: str = ""
    restarts: int = 0
    has_restarted: bool = False
    """Its process was started again since this was last told."""


@dataclass(frozen=True, slots=True)
class ModelServerFacts:
    """Everything `plan.modelserver` decides from."""

    obj: Object
    server: ModelServer
    ca_pem: str
    pods: tuple[ServerPod, ...] = ()
