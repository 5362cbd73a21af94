"""A small world for the operator: FakeCluster, FakeCoordinator, Macs, and a scheduler-and-kubelet in ten lines."""

from __future__ import annotations

from typing import Any

from espalier_api.names import METAL, NODE_KIND, OWNER_KIND, SIMULATED
from espalier_kit.clock import ManualClock
from espalier_kit.digest import sha256
from espalier_kit.errors import EspalierError
from espalier_kube.cluster import (
    BENCHMARK_COMPARISON,
    BENCHMARK_JOB,
    DEPLOYMENT,
    EVENT,
    GRADING_JOB,
    JOB,
    MODEL_SERVER,
    NODE,
    POD,
    Kind,
    Object,
)
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import has_condition, metadata, timestamp, typed
from espalier_operator.apply import Applier
from espalier_operator.authority import Authority
from espalier_operator.cache import Cache
from espalier_operator.fence import FencedCluster
from espalier_operator.observe import Observer
from espalier_operator.plan.kinds import JOB_KINDS
from espalier_operator.plan.policies import read_templates
from espalier_operator.queue import Key, WorkQueue
from espalier_operator.reconcile import Reconciler
from espalier_operator.report import Reporter
from espalier_operator.routing import open_jobs
from espalier_operator.settings import OperatorSettings
from espalier_operator.sources import SourceResolver
from espalier_operator.watching import Intake
from espalier_operator.work import Work
from espalier_operator.work_fake import FakeCoordinator
from espalier_rpc.views import JobView

NAMESPACE = "course"
DIGEST = "a" * 64
MODEL = {"name": "tiny", "source": "random://tiny"}


def operator_settings(**changes: Any) -> OperatorSettings:
    values = {
        "namespace": "espalier-system", "coordinator": "127.9.0.5:50051", "coordinator_web": "https://127.9.0.5:8081",
        "coordinator_name": "espalier-coordinator.espalier-system.svc", "worker_image": "espalier-worker:0.1.0",
        "mlx_image": "espalier-mlx:0.1.0", "node_addresses": "127.9.0.0/16",
    }
    return OperatorSettings.model_validate({**values, **changes})


def grading_job(name: str = "week-1", **spec: Any) -> Object:
    judge = {"template": {"models": [MODEL], "replicas": 1, "placement": "mlx"}}
    body = {
        "assignment": {"uri": f"artifact://{DIGEST}"}, "submissions": {"uri": f"artifact://{'b' * 64}"},
        "models": {"code": judge, "feedback": judge}, **spec,
    }
    return typed(GRADING_JOB, metadata(name, NAMESPACE), spec=body)


def benchmark_job(name: str = "load-1", **spec: Any) -> Object:
    """One template target under a small load, unless `spec` says otherwise."""
    target = {"template": {"models": [MODEL], "replicas": 1, "placement": "mlx"}}
    body = {"targets": [target], "load": {"pattern": "constant", "rate": 2, "durationSeconds": 5}}
    return typed(BENCHMARK_JOB, metadata(name, NAMESPACE), spec={**body, **spec})


def comparison(name: str = "gate", **spec: Any) -> Object:
    body = {"baseline": {"benchmarkJob": "before"}, "candidate": {"benchmarkJob": "after"}}
    return typed(BENCHMARK_COMPARISON, metadata(name, NAMESPACE), spec={**body, **spec})


def linux_node(name: str = "linux-1", **labels: str) -> Object:
    """A kubelet's node; with the label `SIMULATED` an agent's, which runs processes."""
    return typed(NODE, metadata(name, None, labels={NODE_KIND: "linux", **labels}), spec={})


class Memory:
    """An artifact store that only remembers."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []

    async def put(self, data: Any) -> str:
        self.stored.append(data)
        return sha256(data)

    async def get(self, sha256: str) -> bytes:
        raise AssertionError("the operator reads no artifacts")

    def stream(self, sha256: str) -> Any:
        raise AssertionError("the operator reads no artifacts")


class Verdicts:
    """A doctor whose verdicts the test decides; pods that are not named answer."""

    def __init__(self) -> None:
        self.down: dict[str, str] = {}

    def verdict(self, pod_uid: str) -> tuple[bool, float | None, str] | None:
        why = self.down.get(pod_uid)
        return (True, 31.5, "") if why is None else (False, None, why)


class World:
    """Everything around the reconciler. `settle` runs until nothing is left to do at this moment."""

    def __init__(self, *, macs: int = 2, settings: OperatorSettings | None = None) -> None:
        self.clock = ManualClock()
        self.cluster = FakeCluster(clock=self.clock)
        self.coordinator = FakeCoordinator()
        self.store, self.doctor = Memory(), Verdicts()
        self.settings = settings or operator_settings()
        self.holds_lease = True
        self.mac_count = macs
        self.errors: list[EspalierError] = []
        self.start_operator()

    def start_operator(self) -> None:
        """A fresh operator process over the same cluster and coordinator."""
        cluster = FencedCluster(self.cluster, lambda: self.holds_lease)
        self.cache, self.queue = Cache(), WorkQueue(clock=self.clock)
        self.intake = Intake(self.cache, self.queue.add, self.clock)
        self.authority = Authority(cluster, self.settings, self.clock)
        self.reporter = Reporter(cluster, self.intake, self.clock)
        self.work = Work(self.coordinator, on_view=self._view, on_away=self._away, clock=self.clock)
        self.observer = Observer(
            cache=self.cache, cluster=cluster, work=self.work, authority=self.authority,
            sources=SourceResolver(cluster, lambda _namespace: self.store), probes=self.doctor, clock=self.clock,
        )
        self.intake.on_gone = [self.observer.forget, self.reporter.forget]
        applier = Applier(
            cluster, self.cache, self.intake, self.authority, self.clock,
            policies=read_templates(self.settings.policies_file),
        )
        self.reconciler = Reconciler(
            self.observer, applier, self.reporter, self.work, cluster, self.cache, self.intake, self.settings,
            self.clock,
        )

    async def begin(self) -> World:
        await self.authority.load()
        for number in range(self.mac_count):
            await self.add_mac(f"mac-studio-{number + 1}")
        await self.sync_work()
        return self

    async def add_mac(self, name: str, *, ready: bool = True) -> None:
        labels = {NODE_KIND: "mlx", SIMULATED: "true"}
        await self.cluster.create(typed(NODE, metadata(name, None, labels=labels), spec={}))
        await self.set_node(name, "True" if ready else "Unknown")

    async def set_node(self, name: str, ready: str) -> None:
        since = timestamp(self.clock.now())
        condition = {"type": "Ready", "status": ready, "lastTransitionTime": since}
        await self.cluster.patch(
            NODE, name, None, {"status": {"allocatable": {METAL: "1"}, "conditions": [condition]}}, subresource="status"
        )

    async def sync_work(self) -> None:
        """What `Work.run` does when it connects."""
        try:
            listed = await self.coordinator.list()
        except EspalierError as error:
            self.work._lost(str(error))
            return
        for view in listed.jobs:
            self.work._take(view)
        self.work._found()

    async def create(self, obj: Object) -> Object:
        made = await self.cluster.create(obj)
        await self.settle()
        return made

    async def settle(self, rounds: int = 40) -> None:
        """Lists, kubelets and reconciles until nothing changes any more."""
        for _ in range(rounds):
            await self.intake.resync(self.cluster)
            await self.sync_work()
            moved = await self._run_pods()
            if not self.queue.depth and not moved:
                return
            while self.queue.depth:
                await self._work_off()
        raise AssertionError("the world does not come to rest")

    async def pass_time(self, seconds: float) -> None:
        """Let time pass: delayed keys become due, every object is looked at again."""
        await self.clock.advance(seconds)
        for kind in (*JOB_KINDS.values(), MODEL_SERVER):
            for obj in self.cache.all(kind):
                self.queue.add(Key(kind.kind, NAMESPACE, obj["metadata"]["name"]))
        await self.settle()

    async def job(self, name: str = "week-1", kind: Kind = GRADING_JOB) -> Object:
        return await self.cluster.get(kind, name, NAMESPACE)

    async def names(self, kind: Kind) -> list[str]:
        return [o["metadata"]["name"] for o in (await self.cluster.list(kind, NAMESPACE)).items]

    async def events(self, reason: str) -> list[Object]:
        return [e for e in (await self.cluster.list(EVENT)).items if e["reason"] == reason]

    async def edit(self, name: str, *, kind: Kind = GRADING_JOB, **spec: Any) -> None:
        await self.cluster.patch(kind, name, NAMESPACE, {"spec": spec})
        await self.settle()

    async def server_pods(self, server: str) -> list[Object]:
        pods = (await self.cluster.list(POD, NAMESPACE)).items
        return [p for p in pods if p["metadata"]["labels"]["espalier.dev/owner-name"] == server]

    def view(self, uid: str) -> JobView:
        found = self.work.view(uid)
        assert found is not None
        return found

    async def _work_off(self) -> None:
        key = await self.queue.take()
        assert key is not None
        try:
            await self.reconciler.reconcile(key)
        except EspalierError as error:
            self.errors.append(error)
            self.queue.failed(key)
        finally:
            self.queue.done(key)

    async def _run_pods(self) -> bool:
        """Deployments and Jobs get their pods; pods run at once on the first free Mac, or on Linux."""
        moved = False
        for kind, component in ((DEPLOYMENT, "ModelServer"), (JOB, "Job")):
            for owner in (await self.cluster.list(kind, labels=OWNER_KIND)).items:
                wished = _wished_pods(owner)
                have = [p for p in (await self.cluster.list(POD, NAMESPACE)).items if _is_of(p, owner)]
                alive = [p for p in have if p.get("status", {}).get("phase") != "Failed"]
                for number in range(len(alive), wished):
                    moved = True
                    await self._start_pod(owner, f"{owner['metadata']['name']}-{len(have) + number}", component)
                for pod in alive[wished:]:
                    moved = True
                    await self.cluster.delete(POD, pod["metadata"]["name"], NAMESPACE, grace_s=0)
        return moved

    async def _start_pod(self, owner: Object, name: str, component: str) -> None:
        template = owner["spec"]["template"]
        taken = {p["spec"].get("nodeName") for p in (await self.cluster.list(POD)).items}
        macs = [n["metadata"]["name"] for n in (await self.cluster.list(NODE)).items if has_condition(n, "Ready")]
        node = next((m for m in macs if m not in taken), "") if component == "ModelServer" else "linux-1"
        meta = metadata(name, NAMESPACE, labels=template["metadata"]["labels"], owner=owner)
        spec = {**template["spec"], **({"nodeName": node} if node else {})}
        pod = await self.cluster.create(typed(POD, meta, spec=spec))
        if node:
            number = int(pod["metadata"]["uid"].rpartition("-")[2])
            status = {"phase": "Running", "podIP": f"127.9.2.{number % 250}"}
            await self.cluster.patch(POD, name, NAMESPACE, {"status": status}, subresource="status")

    def _view(self, view: JobView) -> None:
        self.queue.add(Key(view.kind, view.namespace, view.name))

    def _away(self) -> None:
        for key in open_jobs(self.cache):
            self.queue.add(key)


def _wished_pods(owner: Object) -> int:
    spec = owner["spec"]
    return 0 if spec.get("suspend") else int(spec.get("replicas", spec.get("parallelism", 0)))


def _is_of(pod: Object, owner: Object) -> bool:
    return any(r["uid"] == owner["metadata"]["uid"] for r in pod["metadata"].get("ownerReferences", ()))


def conditions(obj: Object) -> dict[str, tuple[str, str]]:
    """Type → (status, reason)."""
    return {c["type"]: (c["status"], c["reason"]) for c in obj.get("status", {}).get("conditions", ())}
