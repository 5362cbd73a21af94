"""The only writer of children: server-side apply where a wish is new or changed, merge patch, delete by uid."""

from __future__ import annotations

import contextlib
import logging

from espalier_api.names import SPEC_HASH
from espalier_kit.clock import Clock
from espalier_kit.digest import value_digest
from espalier_kit.errors import Conflict, NotFound
from espalier_kube.cluster import DEPLOYMENT, JOB, MODEL_SERVER, POD, SERVICE_ACCOUNT, Cluster, Kind, Object
from espalier_operator.authority import Authority
from espalier_operator.cache import Cache
from espalier_operator.ownership import check_ours
from espalier_operator.plan.kinds import JOB_KINDS
from espalier_operator.plan.outcome import Burial, Change, Deletion, Notice, Plan
from espalier_operator.plan.policies import PolicyTemplate, job_policies
from espalier_operator.watching import Intake

log = logging.getLogger(__name__)

WATCHED: dict[str, Kind] = {kind.kind: kind for kind in (JOB, DEPLOYMENT, MODEL_SERVER)}
REMEMBERED = 5000
"""Unwatched children remembered as applied; beyond that all are applied once more."""
REAPPLY_S = 300.0
"""Children that we do not watch are applied again after so long, in case somebody changed them."""


class Applier:
    """Carries out a plan's children, changes and deletions; returns Events about what it did."""

    def __init__(
        self, cluster: Cluster, cache: Cache, intake: Intake, authority: Authority, clock: Clock, *,
        policies: tuple[PolicyTemplate, ...] = (),
    ) -> None:
        self._cluster, self._cache, self._intake = cluster, cache, intake
        self._authority, self._clock, self._policies = authority, clock, policies
        self._applied: dict[tuple[str, str, str], tuple[str, float]] = {}

    async def carry_out(self, owner: Object, plan: Plan) -> tuple[Notice, ...]:
        """In order: credentials, the namespace's policies, children, changes, deletions.

        Raises the first error; a later try goes on.
        """
        told: list[Notice] = []
        if plan.has_credentials:
            await self._authority.ensure_server(owner)
        if plan.children:
            for policy in job_policies(owner["metadata"]["namespace"], self._policies):
                await self._ensure_unwatched(policy, value_digest(policy)[:16])
        for child in plan.children:
            if await self._ensure(child):
                told.append(_about("ChildCreated", child["kind"], child["metadata"]["name"], "was created"))
        for change in plan.changes:
            await self._change(change)
        for burial in plan.burials:
            await self._bury(burial)
        for deletion in plan.deletions:
            await self._delete(deletion)
            if deletion.kind.kind not in JOB_KINDS:
                told.append(_about("ChildDeleted", deletion.kind.kind, deletion.name, "was deleted"))
        return tuple(told)

    async def _ensure(self, child: Object) -> bool:
        """Apply where needed; returns whether a watched child is new."""
        kind = WATCHED.get(child["kind"])
        digest = value_digest(child)[:16]
        if kind is None:
            await self._ensure_unwatched(child, digest)
            return False
        meta = child["metadata"]
        live = self._cache.get(kind, meta["name"], meta["namespace"])
        if live is not None and _is_current(live, digest):
            return False
        if live is not None:
            check_ours(live, child)
        annotations = {**meta.get("annotations", {}), SPEC_HASH: digest}
        self._intake.written(await self._cluster.apply({**child, "metadata": {**meta, "annotations": annotations}}))
        return live is None

    async def _ensure_unwatched(self, child: Object, digest: str) -> None:
        meta = child["metadata"]
        place = (child["kind"], meta["namespace"], meta["name"])
        known, at = self._applied.get(place, ("", 0.0))
        if known == digest and self._clock.monotonic() - at < REAPPLY_S:
            return
        if len(self._applied) >= REMEMBERED:
            self._applied.clear()
        if child["kind"] == SERVICE_ACCOUNT.kind:
            with contextlib.suppress(NotFound):
                check_ours(await self._cluster.get(SERVICE_ACCOUNT, meta["name"], meta["namespace"]), child)
        await self._cluster.apply(child)
        self._applied[place] = (digest, self._clock.monotonic())

    async def _change(self, change: Change) -> None:
        self._intake.written(await self._cluster.patch(change.kind, change.name, change.namespace, change.patch))

    async def _bury(self, burial: Burial) -> None:
        """A Job waits for a terminal phase, and ignores failures by disruption; nobody on the node would write one."""
        said = f"node {burial.node} has been away too long"
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "NodeLost", "message": said}
        failed = {"phase": "Failed", "reason": "NodeLost", "message": said, "conditions": [disrupted]}
        meta = {"uid": burial.uid}
        try:
            await self._cluster.patch(
                POD, burial.name, burial.namespace, {"metadata": meta, "status": failed}, subresource="status",
                strategic=True,
            )
            await self._cluster.delete(POD, burial.name, burial.namespace, uid=burial.uid, grace_s=0)
        except (NotFound, Conflict):
            return  # gone meanwhile, or another pod of that name
        log.warning("pod of a lost node buried", extra={"namespace": burial.namespace, "pod": burial.name})

    async def _delete(self, deletion: Deletion) -> None:
        await self._cluster.delete(deletion.kind, deletion.name, deletion.namespace, uid=deletion.uid)
        log.info("deleted", extra={"kind": deletion.kind.kind, "namespace": deletion.namespace, "obj": deletion.name})


def _is_current(live: Object, digest: str) -> bool:
    return (live["metadata"].get("annotations") or {}).get(SPEC_HASH) == digest


def _about(reason: str, kind: str, name: str, what: str) -> Notice:
    return Notice(reason, f"{kind} {name} {what}", key=f"{kind}/{name}")
