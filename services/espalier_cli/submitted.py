"""Jobs of a coordinator, without an object of the cluster: list, show, follow, steer, submit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from espalier_cli.coordinator import Format, Target, coordinator_of, show, table_of, uid_of
from espalier_cli.terminal import notes, out
from espalier_kit.errors import Permanent
from espalier_rpc.rest import RestClient

_FINAL = frozenset({"complete", "cancelled"})


async def list_jobs(target: Target, *, everywhere: bool, status: str, tags: list[str], output: Format) -> None:
    """A line per job."""
    namespace = "" if everywhere else target.where.namespace
    async with coordinator_of(target) as rest:
        told = await rest.get_all("/v1/jobs", "jobs", namespace=namespace, status_filter=status, tag_filter=tags)
    told["jobs"].sort(key=lambda job: job["submitted_at"])
    show(told, jobs_table(told["jobs"]), output, is_empty=not told["jobs"], nothing="no jobs")


async def show_job(target: Target, reference: str, output: Format) -> None:
    """One job and its tasks that are worth telling."""
    async with coordinator_of(target) as rest:
        told = await rest.get(f"/v1/jobs/{await uid_of(rest, reference, target.where.namespace)}")
    show(told, jobs_table([told]), output)
    if output is Format.TABLE and told["outcomes"]:
        out.print(table_of(("task", "state", "attempts", "reason", "message"), (
            (o["key"], o["state"], o["attempts"], o["reason"], o["message"]) for o in told["outcomes"]
        )))


async def watch_job(target: Target, reference: str, output: Format) -> bool:
    """A bar until the job has ended, or a line of JSON per change; whether every task was done."""
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, reference, target.where.namespace)
        last = await (_json_lines(rest, uid) if output is Format.JSON else _bar(rest, uid))
    if output is Format.TABLE:
        out.print(escape(f"{last['name']}: {ended_as(last)}"))
    return ended_as(last) == "complete"


async def steer(target: Target, reference: str, change: Mapping[str, Any], said: str) -> None:
    """Change a job."""
    async with coordinator_of(target) as rest:
        uid = await uid_of(rest, reference, target.where.namespace)
        now = await rest.get(f"/v1/jobs/{uid}")
        if now["state"] in _FINAL:
            raise Permanent(f"job {reference} has already ended ({now['state']})")
        await rest.patch(f"/v1/jobs/{uid}", **change)
    out.print(f"job {escape(reference)} {said}")


async def submit_file(target: Target, path: Path, output: Format) -> None:
    """A job from a YAML or JSON file: the fields of SubmitJobRequest."""
    told = read_object(path)
    async with coordinator_of(target) as rest:
        made = await rest.post("/v1/jobs", **{"namespace": target.where.namespace, **told})
    show(made, jobs_table([made]), output)


def read_object(path: Path) -> dict[str, Any]:
    """A YAML or JSON object. Raises `Permanent`."""
    try:
        told = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise Permanent(f"{path} is no YAML: {error}") from error
    if not isinstance(told, dict):
        raise Permanent(f"{path}: expected an object with the fields of a job, such as `tasks`")
    return told


def ended_as(job: Mapping[str, Any]) -> str:
    """complete, failed or cancelled; empty while it goes on."""
    if job["state"] not in _FINAL:
        return ""
    return "failed" if job["state"] == "complete" and int(job["counts"]["failed"]) else str(job["state"])


def jobs_table(jobs: list[Mapping[str, Any]]) -> Table:
    """State, counts and progress."""
    columns = ("namespace", "name", "uid", "state", "pending", "running", "done", "failed", "progress", "message")
    return table_of(columns, (
        (j["namespace"], j["name"], j["uid"], ended_as(j) or j["state"], *_counts(j), f"{j['fraction']:.0%}",
         j["message"]) for j in jobs
    ))


def _counts(job: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(job["counts"][name]) for name in ("pending", "running", "done", "failed"))


async def _json_lines(rest: RestClient, uid: str) -> Mapping[str, Any]:
    last: Mapping[str, Any] = {}
    async for last in rest.lines(f"/v1/jobs/{uid}:watch"):
        out.print(json.dumps(last), markup=False)
    return last


async def _bar(rest: RestClient, uid: str) -> Mapping[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"))
    last: Mapping[str, Any] = {}
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task(uid, total=1.0, said="")
        async for last in rest.lines(f"/v1/jobs/{uid}:watch"):
            progress.update(bar, description=last["name"], completed=last["fraction"], said=escape(line_of(last)))
    return last


def line_of(job: Mapping[str, Any]) -> str:
    """A job in a few words."""
    pending, running, done, failed = _counts(job)
    parts = [str(job["state"]), f"{done} done", f"{running} running", f"{pending} pending"]
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join([*parts, *([job["message"]] if job["message"] else [])])
