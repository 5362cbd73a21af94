"""One key at a time: observe, plan, apply, report."""

from __future__ import annotations

import dataclasses
import logging

from espalier_api.common import JobStatus
from espalier_kit.clock import Clock
from espalier_kit.errors import Conflict, EspalierError, Forbidden, Permanent, Retryable
from espalier_kube.cluster import CSR, Cluster, Object
from espalier_kube.signing import decided
from espalier_operator import approver
from espalier_operator.apply import Applier
from espalier_operator.cache import Cache
from espalier_operator.observe import Observer
from espalier_operator.plan import benchmarkcomparison, benchmarkjob, gradingjob, job, modelserver
from espalier_operator.plan.conditions import Conditions, job_phase
from espalier_operator.plan.facts import J, JobFacts
from espalier_operator.plan.life import Life
from espalier_operator.plan.outcome import Notice, Plan
from espalier_operator.queue import Key
from espalier_operator.report import Reporter
from espalier_operator.settings import OperatorSettings
from espalier_operator.watching import Intake
from espalier_operator.work import Work

log = logging.getLogger(__name__)

REFUSALS = frozenset({
    "UnknownTemplate", "UnknownParameter", "MissingParameter", "InvalidParameter", "DependencyCycle",
    "UnknownDependency", "PayloadTooLarge", "InvalidTask", "InvalidJob",
})
"""Reasons of the coordinator for not taking a job's tasks as they are written."""
LEAVING_S = 15.0
"""When to look again at an object whose namespace is being deleted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reconciler:
    """`reconcile` is idempotent and decides from what is, never from what happened."""

    observer: Observer
    applier: Applier
    reporter: Reporter
    work: Work
    cluster: Cluster
    cache: Cache
    intake: Intake
    settings: OperatorSettings
    clock: Clock

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object closer to its wish; returns in how many seconds to look again, or None."""
        match key.kind:
            case "GradingJob":
                return await self._job(key, gradingjob.LIFE)
            case "BenchmarkJob":
                return await self._job(key, benchmarkjob.LIFE)
            case "BenchmarkComparison":
                return await self._job(key, benchmarkcomparison.LIFE)
            case "ModelServer":
                return await self._model_server(key)
            case "CertificateSigningRequest":
                await self._certificate(key)
        return None

    async def _job(self, key: Key, life: Life[J]) -> float | None:
        facts: JobFacts[J] | None = await self.observer.job(key.kind, key.name, key.namespace)
        await self._forget_others(key, facts.job.metadata.uid if facts is not None else "")
        if facts is None:
            return None
        plan = job.plan(life, facts, self.clock.now(), self.settings)
        wait = await self._carry_out(facts.obj, plan)
        self.observer.told(facts)
        return wait

    async def _model_server(self, key: Key) -> float | None:
        facts = await self.observer.model_server(key.name, key.namespace)
        if facts is None:
            return None
        wait = await self._carry_out(facts.obj, modelserver.plan(facts, self.clock.now(), self.settings))
        self.observer.told_server(facts)
        return wait

    async def _carry_out(self, obj: Object, plan: Plan) -> float | None:
        trouble: EspalierError | None = None
        blame = "ChildRefused"
        try:
            told = await self.applier.carry_out(obj, plan)
            plan = dataclasses.replace(plan, notices=(*told, *plan.notices))
            blame = "PlatformFault"
            for action in plan.work:
                await self.work.perform(action)
        except EspalierError as error:
            if _is_leaving(error):
                self.observer.mark_leaving(obj["metadata"]["namespace"], is_leaving=True)
                return LEAVING_S
            trouble = error
            plan = self._with_trouble(plan, error, blame)
        held_back = await self.reporter.report(obj, plan)
        if trouble is not None:
            raise trouble
        self.observer.mark_leaving(obj["metadata"]["namespace"], is_leaving=False)
        return min((s for s in (held_back, plan.recheck_s) if s is not None), default=None)

    def _with_trouble(self, plan: Plan, error: EspalierError, blame: str) -> Plan:
        """What no retry mends stands in the status, with the API server's own sentence."""
        taken = isinstance(error, Conflict) and error.reason == "NameTaken"
        if not (taken or isinstance(error, Permanent)):
            return plan
        reason = "NameTaken" if taken else error.reason if error.reason in REFUSALS else blame
        notice = Notice(reason, str(error), key="trouble", type="Warning")
        if not isinstance(plan.status, JobStatus):
            return dataclasses.replace(plan, notices=(*plan.notices, notice))
        status = plan.status
        conditions = Conditions(status.conditions, self.clock.now(), status.observed_generation or 0)
        conditions.set("Progressing", "False", reason, str(error))
        if reason in REFUSALS:
            conditions.set("Accepted", "False", reason, str(error))
        result = conditions.result()
        changed = status.model_copy(update={"conditions": result, "phase": job_phase(result)})
        return dataclasses.replace(plan, status=changed, notices=(*plan.notices, notice))

    async def _forget_others(self, key: Key, uid: str) -> None:
        """Work of objects of that name that are gone."""
        for view in self.work.views_named(key.kind, key.namespace, key.name):
            if view.uid != uid:
                await self.work.forget(view.uid)

    async def _certificate(self, key: Key) -> None:
        csr = self.cache.get(CSR, key.name)
        if csr is None or not approver.is_ours(csr):
            return
        decision = approver.decide(csr, self.settings.node_addresses)
        reason = "CertificateApproved" if decision.approve else "CertificateDenied"
        verdict = decided(
            csr, approve=decision.approve, reason=reason, message=decision.message, now=self.clock.now()
        )
        try:
            self.intake.written(await self.cluster.replace(verdict, subresource="approval"))
        except Conflict as error:
            raise Retryable(f"{key}: decided by somebody else meanwhile") from error
        log.info("certificate request", extra={"csr": key.name, "reason": reason, "why": decision.message})
        if not decision.approve:
            await self.reporter.tell(csr, Notice(reason, decision.message, key=key.name, type="Warning"))


def _is_leaving(error: EspalierError) -> bool:
    """Whether the namespace takes nothing new; the API server says so only in its sentence."""
    return isinstance(error, Forbidden) and "is being terminated" in str(error)
