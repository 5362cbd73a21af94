"""`espalier jobs`: list, show, watch, cancel, suspend, resume, all over the GradingJob object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from espalier_cli.connection import cluster_of, job_of
from espalier_cli.options import Kubeconfig, Namespace, Where, job_name
from espalier_cli.terminal import notes, out, run
from espalier_kit.errors import NotFound, Permanent
from espalier_kube.cluster import GRADING_JOB, Cluster, Object
from espalier_kube.watch import follow

app = typer.Typer(help="Grading jobs: list, show, watch, cancel, suspend, resume.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The job, as NAME or gj/NAME.")]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")]

FINAL = frozenset({"Complete", "Failed", "Cancelled"})
"""Condition types that end a job."""


@app.command("list")
def list_jobs(namespace: Namespace = "default", everywhere: Everywhere = False, kubeconfig: Kubeconfig = None) -> None:
    """A line per job."""

    async def work() -> None:
        async with cluster_of(Where(kubeconfig, namespace)) as cluster:
            found = await cluster.list(GRADING_JOB, None if everywhere else namespace)
        if not found.items:
            notes.print("no grading jobs" if everywhere else f"no grading jobs in namespace {namespace}")
            return
        out.print(jobs_table(found.items))

    run(work())


@app.command()
def show(name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """Counts and conditions of one job."""

    async def work() -> None:
        async with cluster_of(Where(kubeconfig, namespace)) as cluster:
            job = await job_of(cluster, job_name(name), namespace)
        out.print(jobs_table((job,)))
        out.print(conditions_table(job))

    run(work())


@app.command()
def watch(name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """Follow a job to its end. Exit code 0 if it completed, 1 if it failed or was cancelled."""

    async def work() -> bool:
        async with cluster_of(Where(kubeconfig, namespace)) as cluster:
            await job_of(cluster, job_name(name), namespace)
            return await follow_job(cluster, job_name(name), namespace)

    if not run(work()):
        raise typer.Exit(1)


@app.command()
def cancel(name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """Stop a job for good; what is done is kept."""
    _change(name, namespace, kubeconfig, {"cancel": True}, "will be cancelled")


@app.command()
def suspend(name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """Pause a job: running tasks finish, no new one starts."""
    _change(name, namespace, kubeconfig, {"suspend": True}, "will be suspended")


@app.command()
def resume(name: Name, namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """Let a suspended job go on."""
    _change(name, namespace, kubeconfig, {"suspend": False}, "will go on")


async def follow_job(cluster: Cluster, name: str, namespace: str) -> bool:
    """Show a progress bar until the job has ended; returns whether it completed."""
    job = await _until_ended(cluster, name, namespace)
    ended = ended_as(job) or ""
    out.print(escape(ending(job, ended)))
    return ended == "Complete"


async def _until_ended(cluster: Cluster, name: str, namespace: str) -> Object:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task(name, total=100, said="")
        async for event in follow(cluster, GRADING_JOB, namespace, fields=f"metadata.name={name}"):
            if event.type == "DELETED":
                raise NotFound(f"GradingJob {name} was deleted")
            percent = (event.object.get("status") or {}).get("progressPercent") or 0
            progress.update(bar, completed=percent, said=escape(status_line(event.object)))
            if ended_as(event.object) is not None:
                return event.object
    raise AssertionError("unreachable: follow never ends")


def ending(job: Object, ended: str) -> str:
    """How a job ended, why if it did not complete, and where its report is."""
    meta, said = job["metadata"], [f"{job['metadata']['name']}: {ended}"]
    found = next((c for c in conditions(job) if c["type"] == ended), None)
    if ended != "Complete" and found is not None:
        said.append(f"{found['reason']}: {found.get('message', '')}".rstrip(": "))
    if (job.get("status") or {}).get("resultUri"):
        said.append(f"see it with: espalier report gj/{meta['name']} -n {meta['namespace']}")
    return "\n".join(said)


def ended_as(job: Object) -> str | None:
    """The condition that ended the job, or None while it goes on."""
    true = {c["type"] for c in conditions(job) if c["status"] == "True"}
    return next((type_ for type_ in ("Failed", "Cancelled", "Complete") if type_ in true), None) or _refused(job)


def _refused(job: Object) -> str | None:
    rejected = ("Accepted", "False", "BundleRejected")
    return rejected[2] if any((c["type"], c["status"], c["reason"]) == rejected for c in conditions(job)) else None


def status_line(job: Object) -> str:
    """A job in a few words."""
    status = job.get("status") or {}
    counts: Mapping[str, Any] = status.get("submissions") or {}
    parts = [str(status.get("phase") or "not yet seen by the operator")]
    if counts.get("total"):
        finished = sum(counts.get(key, 0) for key in ("graded", "notGradable", "failed"))
        parts.append(f"{finished}/{counts['total']} submissions")
    if status.get("estimatedSecondsLeft"):
        parts.append(f"about {status['estimatedSecondsLeft']} s left")
    return ", ".join(parts)


def jobs_table(jobs: tuple[Object, ...]) -> Table:
    """The columns of `kubectl get gj`."""
    table = Table("namespace", "name", "phase", "done", "review", "mean", "subm/h", "eta", box=None)
    for job in jobs:
        status = job.get("status") or {}
        counts, speed = status.get("submissions") or {}, status.get("performance") or {}
        meta = job["metadata"]
        cells = (
            meta["namespace"], meta["name"], status.get("phase"), counts.get("graded"), counts.get("needsReview"),
            (status.get("scores") or {}).get("mean"), speed.get("submissionsPerHour"),
            status.get("estimatedSecondsLeft"),
        )
        table.add_row(*("-" if cell is None else _short(cell) for cell in cells))
    return table


def conditions_table(job: Object) -> Table:
    """Type, status, reason, message."""
    table = Table("condition", "status", "reason", "message", box=None)
    for found in conditions(job):
        table.add_row(found["type"], found["status"], found["reason"], escape(found.get("message", "")))
    return table


def conditions(job: Object) -> tuple[Mapping[str, str], ...]:
    """The status conditions."""
    return tuple((job.get("status") or {}).get("conditions") or ())


def _short(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else escape(str(cell))


def _change(reference: str, namespace: str, kubeconfig: Kubeconfig, policy: dict[str, bool], said: str) -> None:
    async def work() -> None:
        name = job_name(reference)
        async with cluster_of(Where(kubeconfig, namespace)) as cluster:
            job = await job_of(cluster, name, namespace)
            if (ended := ended_as(job)) is not None:
                raise Permanent(f"GradingJob {name} has already ended ({ended})")
            await cluster.patch(GRADING_JOB, name, namespace, {"spec": {"runPolicy": policy}})
        out.print(f"gradingjob.espalier.dev/{name} {said}")

    run(work())
