"""Every job of a cluster at one glance: its objects of three kinds, and the jobs that only its coordinator has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.markup import escape
from rich.table import Table

from espalier_cli import submitted
from espalier_cli.connection import SUBMITTER, cluster_of, rest_of
from espalier_cli.coordinator import Format, Target, coordinator_of, show, table_of
from espalier_cli.objects import columns_table, figures
from espalier_cli.options import SHORT, kind_of
from espalier_cli.terminal import notes
from espalier_kit.errors import EspalierError, Permanent
from espalier_kube.cluster import NAMESPACE, SERVICE_ACCOUNT, Cluster, Kind, Object
from espalier_rpc.rest import RestClient

JOB = "job"
"""The word for jobs that only a coordinator has, where a kind is asked for."""
OF_OBJECTS = frozenset({"waiting", "admitting", "starting"})
"""Phases of objects that no job of a coordinator has."""
STATUSES = OF_OBJECTS | {
    "pending", "running", "suspended", "cancelling", "cancelled", "complete", "completed", "failed"
}
_SAME = {"completed": "complete"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs: of one kind (None: of every), of one status, with all of some tags."""

    word: str = ""
    everywhere: bool = False
    status: str = ""
    tags: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of objects, which have no tags. Raises `Permanent` for an unknown word."""
        if self.word == JOB or (self.tags and not self.word):
            return ()
        return (kind_of(self.word),) if self.word else tuple(SHORT.values())

    @property
    def are_submitted(self) -> bool:
        """Whether jobs that only a coordinator has are meant too."""
        return self.word in ("", JOB) and self.status not in OF_OBJECTS

    def check(self) -> None:
        """Raise `Permanent` for what no job could pass."""
        kinds = self.kinds
        if self.status and self.status not in STATUSES:
            raise Permanent(f"there is no job status {self.status!r}: use one of {', '.join(sorted(STATUSES))}")
        if self.tags and kinds:
            raise Permanent(f"--tag: {kinds[0].kind}s have no tags, only jobs of a coordinator; leave out {self.word}")

    def has(self, job: Object) -> bool:
        """Whether an object has the status."""
        phase = str((job.get("status") or {}).get("phase") or "Pending").lower()
        return self.status == "" or phase == _SAME.get(self.status, self.status)


async def list_jobs(target: Target, wanted: Wanted, output: Format) -> None:
    """A line per job: those of a plain coordinator, or everything that a cluster has."""
    wanted.check()
    if target.is_plain:
        await _list_plain(target, wanted, output)
        return
    async with cluster_of(target.where) as cluster:
        items = await _objects(cluster, target, wanted)
        jobs = await _alone(cluster, target, wanted) if wanted.are_submitted else []
    show({"items": items, "jobs": jobs}, table(wanted, items, jobs), output, is_empty=not (items or jobs),
         nothing="no jobs" if wanted.everywhere else f"no jobs in namespace {target.namespace}")


async def _list_plain(target: Target, wanted: Wanted, output: Format) -> None:
    async with coordinator_of(target) as rest:
        told = await _told(rest, "" if wanted.everywhere else target.namespace, wanted)
    if wanted.word:
        kinds = {kind.kind for kind in wanted.kinds}
        told["jobs"] = [j for j in told["jobs"] if (j["kind"] in kinds if kinds else is_alone(j))]
    show(told, submitted.jobs_table(told["jobs"]), output, is_empty=not told["jobs"], nothing="no jobs")


async def _objects(cluster: Cluster, target: Target, wanted: Wanted) -> list[Object]:
    where = None if wanted.everywhere else target.namespace
    found = [(await cluster.list(kind, where)).items for kind in wanted.kinds]
    return [job for items in found for job in items if wanted.has(job)]


async def _alone(cluster: Cluster, target: Target, wanted: Wanted) -> list[Mapping[str, Any]]:
    """Jobs that only the coordinator has; a note for each namespace where it cannot be asked."""
    found: list[Mapping[str, Any]] = []
    for namespace in await _namespaces(cluster, target, wanted):
        try:
            async with rest_of(cluster, replace(target.where, namespace=namespace)) as rest:
                found += (await _told(rest, namespace, wanted))["jobs"]
        except EspalierError as error:
            notes.print(f"of namespace {namespace} only objects of the cluster are listed: {escape(str(error))}")
    return [job for job in found if is_alone(job)]


async def _namespaces(cluster: Cluster, target: Target, wanted: Wanted) -> Sequence[str]:
    """Where somebody may have submitted: each namespace's own submitter is asked, unless the namespace is going."""
    if not wanted.everywhere:
        return (target.namespace,)
    accounts = await cluster.list(SERVICE_ACCOUNT, None, fields=f"metadata.name={SUBMITTER}")
    namespaces = (n["metadata"] for n in (await cluster.list(NAMESPACE)).items)
    going = {n["name"] for n in namespaces if "deletionTimestamp" in n}
    return [name for account in accounts.items if (name := account["metadata"]["namespace"]) not in going]


async def _told(rest: RestClient, namespace: str, wanted: Wanted) -> dict[str, Any]:
    """A coordinator's jobs, the oldest first."""
    told = await rest.get_all("/v1/jobs", "jobs", namespace=namespace, status_filter=wanted.status,
                              tag_filter=list(wanted.tags))
    return {**told, "jobs": sorted(told["jobs"], key=lambda job: job["submitted_at"])}


def is_alone(job: Mapping[str, Any]) -> bool:
    """Whether no object stands for this job of a coordinator; the operator names the kind of those that have one."""
    return job["kind"] not in {kind.kind for kind in SHORT.values()}


# ---------------------------------------------------------------- the table


def table(wanted: Wanted, items: Sequence[Object], jobs: Sequence[Mapping[str, Any]]) -> Table:
    """A kind's own columns where one is asked for, else what all have in common."""
    if wanted.word == JOB:
        return submitted.jobs_table(jobs)
    if wanted.word:
        return columns_table(wanted.kinds[0], items)
    columns = ("namespace", "kind", "name", "phase", "done", "eta", "figures")
    return table_of(columns, [*_object_rows(items), *_job_rows(jobs)])


def _object_rows(items: Iterable[Object]) -> Iterator[tuple[object, ...]]:
    words = {kind.kind: short for short, kind in SHORT.items()}
    for item in items:
        meta, status = item["metadata"], item.get("status") or {}
        done = status.get("progressPercent")
        yield (meta["namespace"], words[item["kind"]], meta["name"], status.get("phase"),
               None if done is None else f"{done}%", status.get("estimatedSecondsLeft"), ", ".join(figures(item)))


def _job_rows(jobs: Iterable[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for job in jobs:
        phase = (submitted.ended_as(job) or job["state"]).capitalize()
        yield (job["namespace"], JOB, job["name"], phase, f"{job['fraction']:.0%}", None, submitted.counted(job))
