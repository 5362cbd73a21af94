"""`espalier jobs`: list, show, watch, cancel, suspend, resume: jobs of a cluster of any kind, or of a coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from espalier_api.schema import KINDS
from espalier_cli import submitted, templates
from espalier_cli.commands import command
from espalier_cli.connection import cluster_of, job_of
from espalier_cli.coordinator import Format, Output, Target
from espalier_cli.coordinator import show as show_object
from espalier_cli.options import job_reference
from espalier_cli.terminal import notes, out
from espalier_kit.errors import NotFound, Permanent
from espalier_kube.cluster import GRADING_JOB, Cluster, Kind, Object
from espalier_kube.watch import follow

app = typer.Typer(
    help="Grading jobs, and jobs of a coordinator: list, show, watch, cancel, suspend, resume, submit, templates.",
    no_args_is_help=True,
)
app.add_typer(templates.app, name="template")

Name = Annotated[str, typer.Argument(help="The job, as gj/NAME (or NAME), bj/NAME or bmc/NAME.")]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")]

FINAL = frozenset({"Complete", "Failed", "Cancelled"})
"""Condition types that end a job."""


@command(app, "list")
async def list_jobs(
    target: Target, everywhere: Everywhere = False,
    status: Annotated[str, typer.Option("--status", help="With --coordinator: only those, such as failed.")] = "",
    tag: Annotated[list[str], typer.Option("--tag", help="With --coordinator: only those that have it.")] = [],  # noqa: B006
    output: Output = Format.TABLE,
) -> None:
    """A line per job."""
    if target.is_plain:
        await submitted.list_jobs(target, everywhere=everywhere, status=status, tags=tag, output=output)
        return
    async with cluster_of(target.where) as cluster:
        found = await cluster.list(GRADING_JOB, None if everywhere else target.namespace)
    nothing = "no grading jobs" if everywhere else f"no grading jobs in namespace {target.namespace}"
    show_object({"items": list(found.items)}, jobs_table(found.items), output, is_empty=not found.items,
                nothing=nothing)


@command(app)
async def show(target: Target, name: Name, output: Output = Format.TABLE) -> None:
    """Counts and conditions of one job."""
    if target.is_plain:
        await submitted.show_job(target, name, output)
        return
    async with cluster_of(target.where) as cluster:
        kind, plain = job_reference(name)
        job = await job_of(cluster, plain, target.namespace, kind)
    show_object(job, jobs_table((job,)) if kind == GRADING_JOB else columns_table(kind, job), output)
    if output is Format.TABLE:
        out.print(conditions_table(job))


@command(app)
async def watch(target: Target, name: Name, output: Output = Format.TABLE) -> None:
    """Follow a job to its end. Exit code 0 if it completed, 1 if it failed or was cancelled."""
    if not await _watch(target, name, output):
        raise typer.Exit(1)


async def _watch(target: Target, name: str, output: Format) -> bool:
    if target.is_plain:
        return await submitted.watch_job(target, name, output)
    async with cluster_of(target.where) as cluster:
        kind, plain = job_reference(name)
        await job_of(cluster, plain, target.namespace, kind)
        return await follow_job(cluster, plain, target.namespace, kind)


@command(app)
async def submit(
    target: Target,
    file: Annotated[Path, typer.Argument(help="YAML or JSON with the job's `tasks`.", exists=True)],
    output: Output = Format.TABLE,
) -> None:
    """Give a coordinator a job of any tasks, without an object of the cluster."""
    await submitted.submit_file(target, file, output)


@command(app)
async def cancel(
    target: Target, name: Name,
    reason: Annotated[str, typer.Option("--reason", help="With --coordinator: shown with the job.")] = "",
) -> None:
    """Stop a job for good; what is done is kept."""
    change: dict[str, bool | str] = {"cancel": True, "cancel_reason": reason}
    await _change(target, name, {"cancel": True}, change, "will be cancelled")


@command(app)
async def suspend(target: Target, name: Name) -> None:
    """Pause a job: running tasks finish, no new one starts."""
    await _change(target, name, {"suspend": True}, {"suspended": True}, "will be suspended")


@command(app)
async def resume(target: Target, name: Name) -> None:
    """Let a suspended job go on."""
    await _change(target, name, {"suspend": False}, {"suspended": False}, "will go on")


async def follow_job(cluster: Cluster, name: str, namespace: str, kind: Kind = GRADING_JOB) -> bool:
    """Show a progress bar until the job has ended; returns whether it completed."""
    job = await _until_ended(cluster, name, namespace, kind)
    ended = ended_as(job) or ""
    out.print(escape(ending(job, ended)))
    return ended == "Complete"


async def _until_ended(cluster: Cluster, name: str, namespace: str, kind: Kind) -> Object:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task(name, total=100, said="")
        async for event in follow(cluster, kind, namespace, fields=f"metadata.name={name}"):
            if event.type == "DELETED":
                raise NotFound(f"{kind.kind} {name} was deleted")
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
    if (job.get("status") or {}).get("resultUri") and job.get("kind") == GRADING_JOB.kind:
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


def columns_table(kind: Kind, job: Object) -> Table:
    """One job under the columns of `kubectl get`."""
    columns = next(each for each in KINDS if each.kind == kind.kind).columns
    shown = [column for column in columns if not column.json_path.startswith(".metadata")]
    table = Table("namespace", "name", *(column.name.lower() for column in shown), box=None)
    found = (_at(job, column.json_path) for column in shown)
    meta = job["metadata"]
    table.add_row(meta["namespace"], meta["name"], *("-" if cell is None else _short(cell) for cell in found))
    return table


def _at(value: Any, path: str) -> Any:
    for part in path.removeprefix(".").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


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


async def _change(
    target: Target, reference: str, policy: dict[str, bool], change: dict[str, bool | str], said: str
) -> None:
    """`policy` for an object of the cluster, `change` for a job of a coordinator alone."""
    if target.is_plain:
        await submitted.steer(target, reference, change, said)
        return
    kind, name = job_reference(reference)
    async with cluster_of(target.where) as cluster:
        job = await job_of(cluster, name, target.namespace, kind)
        if (ended := ended_as(job)) is not None:
            raise Permanent(f"{kind.kind} {name} has already ended ({ended})")
        await cluster.patch(kind, name, target.namespace, {"spec": {"runPolicy": policy}})
    out.print(f"{kind.kind.lower()}.espalier.dev/{name} {said}")
