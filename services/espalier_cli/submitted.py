"""Jobs of a coordinator, without an object of the cluster: show, follow, steer, submit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rich.markup import escape
from rich.table import Table

from espalier_cli.coordinator import Format, Target, coordinator_of, show, table_of
from espalier_cli.following import Step, followed
from espalier_cli.terminal import out
from espalier_kit.errors import Permanent
from espalier_rpc.rest import RestClient

_FINAL = frozenset({"complete", "cancelled"})


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """One job, by its uid."""

    rest: RestClient
    uid: str

    async def show(self, output: Format) -> None:
        """The job and its tasks that are worth telling."""
        told = await self.rest.get(self._path)
        show(told, jobs_table([told]), output)
        if output is Format.TABLE and told["outcomes"]:
            out.print(table_of(("task", "state", "attempts", "reason", "message"), (
                (o["key"], o["state"], o["attempts"], o["reason"], o["message"]) for o in told["outcomes"]
            )))

    async def watch(self, output: Format) -> bool:
        """A bar until the job has ended, or a line of JSON per change; whether every task was done."""
        last = await followed(self.rest.lines(f"{self._path}:watch"), output, _step)
        if output is Format.TABLE:
            out.print(escape(f"{last['name']}: {ended_as(last)}"))
        return ended_as(last) == "complete"

    async def cancel(self, reason: str) -> None:
        """Stop it for good."""
        await self._change("will be cancelled", cancel=True, cancel_reason=reason)

    async def suspend(self, is_suspended: bool) -> None:
        """Pause it, or let it go on."""
        await self._change("will be suspended" if is_suspended else "will go on", suspended=is_suspended)

    async def _change(self, said: str, **fields: Any) -> None:
        now = await self.rest.get(self._path)
        if now["state"] in _FINAL:
            raise Permanent(f"job {now['name']} has already ended ({now['state']})")
        await self.rest.patch(self._path, **fields)
        out.print(f"job {escape(now['name'])} {said}")

    @property
    def _path(self) -> str:
        return f"/v1/jobs/{quote(self.uid, safe='')}"


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


def jobs_table(jobs: Sequence[Mapping[str, Any]]) -> Table:
    """State, counts and progress."""
    columns = ("namespace", "name", "uid", "state", "pending", "running", "done", "failed", "progress", "message")
    return table_of(columns, (
        (j["namespace"], j["name"], j["uid"], ended_as(j) or j["state"], *_counts(j), f"{j['fraction']:.0%}",
         j["message"]) for j in jobs
    ))


def _counts(job: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(job["counts"][name]) for name in ("pending", "running", "done", "failed"))


def _step(job: Mapping[str, Any]) -> Step:
    return Step(job["name"], job["fraction"], line_of(job))


def line_of(job: Mapping[str, Any]) -> str:
    """A job in a few words."""
    return ", ".join([str(job["state"]), counted(job), *([job["message"]] if job["message"] else [])])


def counted(job: Mapping[str, Any]) -> str:
    """How many of its tasks are where."""
    pending, running, done, failed = _counts(job)
    said = f"{done} done, {running} running, {pending} pending"
    return f"{said}, {failed} failed" if failed else said
