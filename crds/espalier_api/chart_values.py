"""The values of the chart `espalier`, typed once: values.yaml, its JSON schema and the reference page come from here.

A field's default is the chart's default, its description the comment above it. Unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from espalier_api.chart_pools import Pool, PoolOptions
from espalier_api.meta import Model

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
OptionalName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
ChartQuantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Strings = dict[str, str]


class PullSecret(Model):
    """An image pull secret of the release's namespace."""

    name: Name


class Images(Model):
    """Where the programs' images come from."""

    registry: str = Field(
        default="", max_length=200,
        description='Prefix of every image, e.g. "harbour.example.edu/platform". The image of program W is '
        "<registry>/espalier-W:<tag>.",
    )
    tag: str = Field(
        default="", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$", description="Empty: the chart's appVersion."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="Also for the pods that the operator makes."
    )
    pull_secrets: tuple[PullSecret, ...] = Field(default=(), description="Existing Secrets: [{name: …}].")


class PodResources(Model):
    """CPU and memory of one pod: what is requested is also the limit."""

    cpu: ChartQuantity = Field(description="CPU, requested and limited.")
    memory: ChartQuantity = Field(description="Memory, requested and limited.")


class PodAmounts(Model):
    """CPU and memory."""

    cpu: ChartQuantity = Field(description="CPU.")
    memory: ChartQuantity = Field(description="Memory.")


class ChartToleration(Model):
    """A pod's toleration."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Placed(Model):
    """Where a program's pod runs and what it carries."""

    node_selector: Strings = Field(
        default={"kubernetes.io/os": "linux"}, description="Labels of the nodes it may be on."
    )
    tolerations: tuple[ChartToleration, ...] = Field(default=(), description="Taints it tolerates.")
    pod_labels: Strings = Field(default={}, description="Further labels of its pods.")
    pod_annotations: Strings = Field(default={}, description="Further annotations of its pods.")


class Operator(Placed):
    """The operator: turns GradingJobs and ModelServers into pods."""

    port: PortNumber = Field(default=8080, description="Health and metrics, plain HTTP.")
    termination_grace_seconds: int = Field(
        default=30, ge=1, le=3600, description="How long it may take to finish its writes and give up the Lease."
    )
    resources: PodResources = Field(default=PodResources(cpu="500m", memory="256Mi"), description="Of its pod.")


class Database(Model):
    """Where the coordinator keeps tasks and results."""

    existing_secret: OptionalName = Field(
        default="",
        description="A Secret in the release's namespace whose key `url` is postgresql://USER:PASSWORD@HOST/DATABASE, "
        "a database of the coordinator's own. Empty: SQLite on its volume. Artifacts lie on the volume in either case.",
    )


class Callers(Model):
    """Callers of the coordinator that are no service accounts."""

    existing_secret: OptionalName = Field(
        default="",
        description="A Secret in the release's namespace whose key `callers.yaml` lists API keys (hashed) and their "
        "rights. Service accounts are known besides.",
    )


class Storage(Model):
    """The coordinator's volume."""

    size: ChartQuantity = Field(default="20Gi", description="Of the PersistentVolumeClaim; fixed at installation.")
    storage_class: str = Field(default="", max_length=253, description="Empty: the cluster's default class.")


class Coordinator(Placed):
    """The coordinator: durable tasks, results and artifacts."""

    grpc_port: PortNumber = Field(default=50051, description="gRPC over TLS: the operator, workers, KEDA.")
    http_port: PortNumber = Field(default=8081, description="HTTPS: artifacts, REST, metrics, health.")
    health_port: PortNumber = Field(
        default=50052, description="gRPC health in plain text, for the kubelet's probes, which speak no TLS."
    )
    scaling_port: PortNumber = Field(
        default=8443, description="external.metrics.k8s.io for the API server, where a pool is scaled by it."
    )
    address: str = Field(
        default="", pattern=r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|)$",
        description="A fixed pod address where cluster DNS and Services do not reach (the local cluster's process "
        "nodes). Empty: programs dial the Service, espalier-coordinator.<namespace>.svc.",
    )
    lease_seconds: float = Field(
        default=30, gt=0, description="A worker that is silent for so long loses its tasks to another."
    )
    heartbeat_seconds: float = Field(default=5, gt=0, description="How often a worker says that it lives.")
    health_timeout_seconds: float = Field(
        default=10, gt=0, description="A worker that is silent for so long is called degraded."
    )
    retries: int = Field(default=3, ge=0, le=20, description="Further attempts of a task, where its job does not say.")
    fairness: Literal["priority", "weighted-jobs", "weighted-namespaces"] = Field(
        default="priority",
        description="How jobs of one priority share the workers: first come first served, or by weight.",
    )
    max_completed_jobs: int = Field(
        default=1000, ge=0, description="Completed jobs kept in memory; older ones are read from the database."
    )
    completed_ttl_seconds: float = Field(
        default=0, ge=0, description="After that, completed jobs are forgotten; 0: when their object is deleted."
    )
    reserved_share: float = Field(
        default=0.5, ge=0, le=1,
        description="Of the slots on workers that serve every namespace, what the reservations of one may hold back.",
    )
    reservation_max_seconds: float = Field(
        default=86400, ge=0, description="For so long a submitter may hold capacity back; 0: for any time."
    )
    artifact_share: float = Field(
        default=0.5, ge=0, le=1,
        description="Of the volume, what the artifacts of one namespace may fill; 0: as much as there is.",
    )
    artifact_unused_seconds: float = Field(
        default=2592000, ge=0,
        description="Artifacts that no job names go so long after they were last put or read; 0: never, else a day or"
        " more.",
    )
    cache_entries: int = Field(default=10000, ge=0, description="Results kept to answer for equal tasks.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    callers: Callers = Callers()
    pre_stop_seconds: int = Field(
        default=2, ge=0, le=600,
        description="It still takes calls for so long after it was told to go, until the Service leads nobody to it.",
    )
    termination_grace_seconds: int = Field(
        default=30, ge=10, le=3600, description="How long it may take to write what is queued and to end its streams."
    )
    database: Database = Database()
    admins: tuple[Annotated[str, Field(min_length=1, pattern=r"^[^,]+$")], ...] = Field(
        default=(), description="Further user names that may do what the operator may (all jobs, all artifacts)."
    )
    storage: Storage = Storage()
    resources: PodResources = Field(default=PodResources(cpu="1", memory="1Gi"), description="Of its pod.")


class Nodes(Model):
    """The Macs."""

    addresses: tuple[Cidr, ...] = Field(
        default=(),
        description="CIDRs of the Macs: a node may have a serving certificate only for an address there, and workers "
        "may reach model servers there. Empty: no certificate is approved by us.",
    )


class Subject(Model):
    """A RoleBinding's subject."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: Annotated[str, Field(min_length=1)]
    namespace: Name | None = None
    api_group: Literal["rbac.authorization.k8s.io", ""] | None = None


class WorkerResources(Model):
    """Of the workers that the operator makes for a job, where the job's spec.workers.pod.resources says nothing."""

    requests: PodAmounts = Field(default=PodAmounts(cpu="500m", memory="512Mi"), description="What is promised.")
    limits: PodAmounts = Field(default=PodAmounts(cpu="4", memory="4Gi"), description="What each may take.")


class Jobs(Model):
    """Who may submit, and where."""

    namespaces: Annotated[tuple[Name, ...], Field(json_schema_extra={"uniqueItems": True})] = Field(
        default=(),
        description="Existing namespaces that get the ServiceAccount espalier-submitter (for `espalier push`).",
    )
    worker_resources: WorkerResources = WorkerResources()
    submitters: tuple[Subject, ...] = Field(
        default=(), description="Users or groups that may submit in those namespaces (RoleBinding subjects)."
    )


class LabelSelector(Model):
    """A Kubernetes label selector by equality."""

    match_labels: Strings = Field(default={})


class PolicyPeer(Model):
    """A NetworkPolicy peer: a CIDR, or pods by their labels and their namespace's."""

    cidr: Cidr | None = None
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None


class ApiServer(Model):
    """How pods reach the Kubernetes API server, which policies can only name by address."""

    cidrs: tuple[Cidr, ...] = Field(
        default=("0.0.0.0/0",), min_length=1,
        description="The API server's addresses, as `kubectl get endpointslices kubernetes` shows them. Narrow it.",
    )
    ports: tuple[PortNumber, ...] = Field(
        default=(443, 6443), min_length=1,
        description="Its ports: the Service's and the one that the Service is translated to.",
    )


class Dns(Model):
    """Who answers names."""

    peers: tuple[PolicyPeer, ...] = Field(
        min_length=1,
        default=(
            PolicyPeer(
                namespace_selector=LabelSelector(match_labels={"kubernetes.io/metadata.name": "kube-system"}),
                pod_selector=LabelSelector(match_labels={"k8s-app": "kube-dns"}),
            ),
        ),
        description="The cluster's DNS pods; with a node-local cache its address as cidr.",
    )


class DatabasePeers(Model):
    """How the coordinator reaches its database; used when coordinator.database.existingSecret is set."""

    peers: tuple[PolicyPeer, ...] = Field(default=(), description="Where the database is.")
    port: PortNumber = Field(default=5432, description="The database's port.")


class Metrics(Model):
    """Who may scrape metrics."""

    peers: tuple[PolicyPeer, ...] = Field(
        default=(
            PolicyPeer(namespace_selector=LabelSelector(match_labels={"kubernetes.io/metadata.name": "monitoring"})),
        ),
        description="Prometheus' pods.",
    )


class Keda(Model):
    """KEDA, which asks the coordinator how much work waits; used when a pool's autoscaling.mode is keda."""

    peers: tuple[PolicyPeer, ...] = Field(
        default=(PolicyPeer(namespace_selector=LabelSelector(match_labels={"kubernetes.io/metadata.name": "keda"})),),
        description="KEDA's operator.",
    )


class ExternalModels(Model):
    """Model endpoints outside the cluster."""

    cidr: Cidr
    ports: Annotated[tuple[PortNumber, ...], Field(min_length=1)]


class NetworkPolicies(Model):
    """Default-deny policies for our pods, and the edges they need. The list of edges: docs/reference/network.md."""

    enabled: bool = Field(
        default=True,
        description="Make them: here for the release's namespace, by the operator in each namespace that has jobs.",
    )
    api_server: ApiServer = ApiServer()
    dns: Dns = Dns()
    database: DatabasePeers = DatabasePeers()
    metrics: Metrics = Metrics()
    keda: Keda = Keda()
    models: tuple[ExternalModels, ...] = Field(
        default=(), description="Where `endpoint` models outside the cluster are: [{cidr: …, ports: […]}]."
    )


class Canary(Model):
    """`helm test`: one task through the coordinator, from submission to result."""

    timeout_seconds: int = Field(default=60, ge=5, le=3600, description="How long the canary's task may take.")


class Dashboards(Model):
    """Grafana's."""

    enabled: bool = Field(default=True, description="ConfigMaps that Grafana's sidecar loads.")
    labels: Strings = Field(default={"grafana_dashboard": "1"}, description="What the sidecar looks for.")


class Observability(Model):
    """Dashboards, alerts, and how Prometheus finds our pods."""

    dashboards: Dashboards = Dashboards()
    alerts: Literal["ConfigMap", "PrometheusRule", "off"] = Field(
        default="ConfigMap",
        description="The alert rules as a ConfigMap with the rule file, or for the Prometheus operator (its CRDs must "
        "exist).",
    )
    labels: Strings = Field(default={}, description="Further labels of the rules, such as what a Prometheus selects.")
    scrape_config: bool = Field(
        default=True, description="The ConfigMap espalier-scrape: `scrape_configs` for a Prometheus of your own."
    )


class Values(Model):
    """Values of the chart espalier."""

    images: Images = Images()
    operator: Operator = Operator()
    coordinator: Coordinator = Coordinator()
    pool_defaults: PoolOptions = PoolOptions()
    pools: tuple[Pool, ...] = Field(
        default=(),
        description="Shared worker pools: [{name: …}], each a Deployment espalier-pool-NAME. A pool's further options "
        "are those of poolDefaults.",
    )
    nodes: Nodes = Nodes()
    jobs: Jobs = Jobs()
    network_policies: NetworkPolicies = NetworkPolicies()
    observability: Observability = Observability()
    canary: Canary = Canary()
