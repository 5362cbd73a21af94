"""Jobs that are objects of a cluster: what they look like, following one to its end, changing its run policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from espalier_api.schema import KINDS
from espalier_cli.coordinator import Format, show, table_of
from espalier_cli.following import Step, followed
from espalier_cli.terminal import out
from espalier_kit.errors import NotFound, Permanent
from espalier_kube.cluster import GRADING_JOB, Cluster, Kind, Object
from espalier_kube.watch import follow


@dataclass(frozen=True, slots=True)
class ObjectJob:
    """One job; `job` is the object as it was found."""

    cluster: Cluster
    kind: Kind
    job: Object

    async def show(self, output: Format) -> None:
        """Its columns of `kubectl get`, and its conditions."""
        show(self.job, columns_table(self.kind, [self.job]), output)
        if output is Format.TABLE:
            out.print(conditions_table(self.job))

    async def watch(self, output: Format) -> bool:
        """Follow it to its end; whether it completed."""
        return await follow_job(self.cluster, self._name, self._namespace, self.kind, output=output)

    async def cancel(self, reason: str) -> None:
        """Raises `Permanent` for a reason, which no field of the object would keep."""
        if reason:
            raise Permanent(f"--reason is kept for jobs that only a coordinator has: {self._said} has no field for it")
        await self._change({"cancel": True}, "will be cancelled")

    async def suspend(self, is_suspended: bool) -> None:
        """Pause it, or let it go on."""
        await self._change({"suspend": is_suspended}, "will be suspended" if is_suspended else "will go on")

    async def _change(self, policy: Mapping[str, bool], said: str) -> None:
        if (ended := ended_as(self.job)) is not None:
            raise Permanent(f"{self._said} has already ended ({ended})")
        await self.cluster.patch(self.kind, self._name, self._namespace, {"spec": {"runPolicy": policy}})
        out.print(f"{self.kind.kind.lower()}.espalier.dev/{self._name} {said}")

    @property
    def _name(self) -> str:
        return str(self.job["metadata"]["name"])

    @property
    def _namespace(self) -> str:
        return str(self.job["metadata"]["namespace"])

    @property
    def _said(self) -> str:
        return f"{self.kind.kind} {self._name}"


async def follow_job(
    cluster: Cluster, name: str, namespace: str, kind: Kind = GRADING_JOB, *, output: Format = Format.TABLE
) -> bool:
    """Show how far the job is until it has ended; returns whether it completed."""
    job = await followed(_changes(cluster, name, namespace, kind), output, _step)
    ended = ended_as(job) or ""
    if output is Format.TABLE:
        out.print(escape(ending(job, ended)))
    return ended == "Complete"


async def _changes(cluster: Cluster, name: str, namespace: str, kind: Kind) -> AsyncIterator[Object]:
    """Each version of the object, to the one that has ended."""
    version = ""
    async for event in follow(cluster, kind, namespace, fields=f"metadata.name={name}"):
        if event.type == "DELETED":
            raise NotFound(f"{kind.kind} {name} was deleted")
        if event.object["metadata"]["resourceVersion"] != version:
            version = event.object["metadata"]["resourceVersion"]
            yield event.object
        if ended_as(event.object) is not None:
            return


def _step(job: Mapping[str, Any]) -> Step:
    percent = (job.get("status") or {}).get("progressPercent") or 0
    return Step(job["metadata"]["name"], percent / 100, status_line(job))


def ending(job: Mapping[str, Any], ended: str) -> str:
    """How a job ended, why if it did not complete, and where its report is."""
    meta, said = job["metadata"], [f"{job['metadata']['name']}: {ended}"]
    found = next((c for c in conditions(job) if c["type"] == ended), None)
    if ended != "Complete" and found is not None:
        said.append(f"{found['reason']}: {found.get('message', '')}".rstrip(": "))
    if (job.get("status") or {}).get("resultUri") and job.get("kind") == GRADING_JOB.kind:
        said.append(f"see it with: espalier report gj/{meta['name']} -n {meta['namespace']}")
    return "\n".join(said)


def ended_as(job: Mapping[str, Any]) -> str | None:
    """The condition that ended the job, or None while it goes on."""
    true = {c["type"] for c in conditions(job) if c["status"] == "True"}
    return next((type_ for type_ in ("Failed", "Cancelled", "Complete") if type_ in true), None)


def status_line(job: Mapping[str, Any]) -> str:
    """A job in a few words."""
    status = job.get("status") or {}
    parts = [str(status.get("phase") or "not yet seen by the operator"), *figures(job)]
    if status.get("estimatedSecondsLeft"):
        parts.append(f"about {status['estimatedSecondsLeft']} s left")
    return ", ".join(parts)


def figures(job: Mapping[str, Any]) -> Iterator[str]:
    """What it has come to so far, in the words of its kind."""
    status = job.get("status") or {}
    counts: Mapping[str, Any] = status.get("submissions") or {}
    if counts.get("total"):
        finished = sum(counts.get(key, 0) for key in ("graded", "notGradable", "failed"))
        yield f"{finished}/{counts['total']} submissions"
    if (first := (status.get("headline") or {}).get("ttftP50Ms")) is not None:
        yield f"TTFT p50 {first:.1f} ms"
    if verdict := (status.get("validity") or {}).get("verdict") or status.get("verdict"):
        yield str(verdict)


def columns_table(kind: Kind, jobs: Iterable[Mapping[str, Any]]) -> Table:
    """Jobs of one kind under the columns of `kubectl get`."""
    columns = next(each for each in KINDS if each.kind == kind.kind).columns
    shown = [column for column in columns if not column.json_path.startswith(".metadata")]
    paths = (".metadata.namespace", ".metadata.name", *(column.json_path for column in shown))
    return table_of(("namespace", "name", *(column.name.lower() for column in shown)), (
        [_at(job, path) for path in paths] for job in jobs
    ))


def _at(value: Any, path: str) -> Any:
    for part in path.removeprefix(".").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def conditions_table(job: Mapping[str, Any]) -> Table:
    """Type, status, reason, message."""
    table = Table("condition", "status", "reason", "message", box=None)
    for found in conditions(job):
        table.add_row(found["type"], found["status"], found["reason"], escape(found.get("message", "")))
    return table


def conditions(job: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    """The status conditions."""
    return tuple((job.get("status") or {}).get("conditions") or ())
