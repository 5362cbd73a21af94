"""Chaos: tasks are submitted until so many processes were killed or stopped and connections cut, then everything heals;
every task must have exactly one accepted result, which one of its executions made.

`python -m tests.support.chaos --events 1000` runs it on both databases and writes docs/reference/chaos.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from espalier_coordinator.store import StoredTask, TaskStore
from espalier_coordinator.store.postgres import PostgresStore
from espalier_coordinator.store.sqlite import SqliteStore
from espalier_kit.errors import EspalierError
from espalier_kit.execution import Dependency, TaskSpec, TaskState
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.views import JobRequest, JobView
from tests.support.chaos_worker import TYPE
from tests.support.chaos_world import Chaos
from tests.support.postgres import PostgresServer, running_server

PLAIN, PARENTS, JOINS = 30, 6, 6
PER_JOB = PLAIN + 2 * PARENTS + JOINS
OPEN_JOBS = 2
PATIENCE_S = 1.5
"""The next event comes when a result was accepted since the last one, or after this time."""
HEAL_S = 120.0
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "chaos.md"


@dataclass
class Report:
    """What happened and what came of it."""

    store: str
    seed: int
    events: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    jobs: int = 0
    tasks: int = 0
    executions: int = 0
    longest_gap_s: float = 0.0
    """Without an accepted result, while there was work."""

    @property
    def again(self) -> int:
        """Executions whose result did not count."""
        return self.executions - self.tasks


class Submitter:
    """Keeps jobs open, sees results come, and remembers what each completed job told of its tasks."""

    def __init__(self, chaos: Chaos, report: Report) -> None:
        self._chaos = chaos
        self._report = report
        self._client: CoordinatorClient | None = None
        self._open: dict[str, int] = {}
        self._last = time.monotonic()
        self.values: dict[str, bytes] = {}
        """Accepted results by task id, as told when the job had just completed."""
        self.accepted = 0
        self._epoch = 0
        self.is_closing = False
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Until it `is_closing` and every job is complete. Whatever does not answer is asked again."""
        while not (self.is_closing and not self._open):
            self._client = self._client or self._chaos.client()
            try:
                await self._round(self._client)
            except EspalierError:
                await self._client.close()
                self._client = None
            await asyncio.sleep(0.1)
        if self._client:
            await self._client.close()

    async def until_accepted(self, count: int, timeout_s: float) -> None:
        """Until so many results were accepted, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.accepted >= count)
        except TimeoutError:
            pass

    async def _round(self, client: CoordinatorClient) -> None:
        if len(self._open) < OPEN_JOBS and not self.is_closing:
            uid = f"chaos-{self._report.jobs}"
            await client.submit(_job(uid, self._chaos.folder / "diary"))
            self._report.jobs += 1
            self._open[uid] = 0
        for uid, before in list(self._open.items()):
            view = await client.get(uid)
            await self._see(uid, view, before)
            if view.is_final and self._open[uid] == PER_JOB:
                self.values |= {t.id: json.dumps(t.value).encode() for t in await client.tasks(uid)}
                del self._open[uid]

    async def _see(self, uid: str, view: JobView, before: int) -> None:
        epoch = int(view.epoch.partition("-")[0])
        if epoch < self._epoch:
            return  # a coordinator that stood still, was replaced and does not know it yet: old news
        self._epoch = epoch
        assert view.counts.failed == 0, view
        assert view.counts.done >= before, f"results of {uid} were lost: {before} were accepted, now {view.counts.done}"
        if view.counts.done > before:
            now = time.monotonic()
            self._report.longest_gap_s = max(self._report.longest_gap_s, now - self._last)
            self._last = now
            self._open[uid] = view.counts.done
            async with self._changed:
                self.accepted += view.counts.done - before
                self._changed.notify_all()


def _job(uid: str, diary: Path) -> JobRequest:
    def payload(n: int, children: int = 0) -> dict[str, object]:
        return {"seconds": 0.1 + n % 7 * 0.05, "diary": str(diary), "children": children}

    plain = [TaskSpec(f"t{n}", TYPE, payload(n)) for n in range(PLAIN)]
    parents = [TaskSpec(f"p{n}", TYPE, payload(n, 1)) for n in range(PARENTS)]
    joins = [
        TaskSpec(f"j{n}", TYPE, payload(n), depends_on=(Dependency(f"t{2 * n}"), Dependency(f"p{n}")))
        for n in range(JOINS)
    ]
    return JobRequest(uid=uid, namespace="default", name=uid, kind="Chaos", retries=100_000, task_timeout_s=60.0,
                      tasks=(*plain, *parents, *joins))


async def chaos(folder: Path, *, events: int, seed: int, database: str = "") -> Report:
    """Run it. Raises `AssertionError` for whatever was lost, doubled or made up."""
    report = Report("PostgreSQL, two coordinators" if database else "SQLite, one coordinator", seed)
    world = Chaos(folder, seed, database)
    started = time.monotonic()
    await world.start()
    submitter = Submitter(world, report)
    submitting = asyncio.create_task(submitter.run())
    try:
        await submitter.until_accepted(5, 60.0)
        for _ in range(events):
            accepted = submitter.accepted
            report.events[world.harm()] += 1
            await submitter.until_accepted(accepted + 1, PATIENCE_S)
            if submitting.done():
                submitting.result()
        await world.heal()
        submitter.is_closing = True
        await asyncio.wait_for(submitting, HEAL_S)
    finally:
        submitting.cancel()
        await world.close()
        report.seconds, report.starts = time.monotonic() - started, world.starts
    store: TaskStore = PostgresStore(database) if database else SqliteStore(folder / "data" / "coordinator.db")
    _check(report, submitter, store, folder / "diary")
    store.close()
    return report


def _check(report: Report, submitter: Submitter, store: TaskStore, diary: Path) -> None:
    """The disk against what was told, and both against what was executed."""
    executed = {(task_id, nonce) for task_id, _, nonce in map(str.split, diary.read_text().splitlines())}
    tasks = [task for n in range(report.jobs) for task in store.job(f"chaos-{n}").tasks]
    report.tasks, report.executions = len(tasks), len(executed)
    assert len(tasks) == report.jobs * PER_JOB, f"{len(tasks)} tasks of {report.jobs * PER_JOB}"
    assert len({t.record.id for t in tasks}) == len(tasks)
    for task in tasks:
        value = _accepted(task)
        assert json.loads(submitter.values[task.record.id]) == value, "told and stored differ"
        assert (task.record.id, value["nonce"]) in executed, "a result that no execution made"


def _accepted(task: StoredTask) -> dict[str, str]:
    assert task.ending is not None, f"{task.record.job_uid} {task.record.key} has no result"
    assert task.ending.state is TaskState.DONE, task.ending
    value: dict[str, str] = json.loads(task.ending.value)
    return value


# ---------------------------------------------------------------- the page


def page(reports: list[Report], command: str) -> str:
    """docs/reference/chaos.md."""
    kinds = sorted({kind for r in reports for kind in r.events})
    rows = [
        ("events", *(f"{sum(r.events.values()):,}" for r in reports)),
        *((f"… {kind}", *(str(r.events[kind]) for r in reports)) for kind in kinds),
        ("coordinators started", *(str(r.starts["coordinator"] + 1) for r in reports)),
        ("workers started", *(str(r.starts["worker"]) for r in reports)),
        ("tasks submitted", *(f"{r.tasks:,}" for r in reports)),
        ("with exactly one accepted result", *(f"{r.tasks:,}" for r in reports)),
        ("lost, doubled, made up", *("0" for _ in reports)),
        ("executions whose result did not count", *(f"{r.again:,}" for r in reports)),
        ("longest time without an accepted result", *(f"{r.longest_gap_s:.1f} s" for r in reports)),
        ("whole run", *(f"{r.seconds:.0f} s" for r in reports)),
        ("seed", *(str(r.seed) for r in reports)),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"""# Chaos

Real coordinators and workers; tasks are submitted until so many random events have happened: `SIGKILL`, `SIGSTOP` with
a `SIGCONT` up to 7 s later (a lease lasts 4 s), connections cut. What ended is started again, as a cluster would. A run
fails unless every task has exactly one accepted result on the disk, the same that was told when its job completed, and
one that an execution of that very task made. `make test` runs a short one on both databases.

`{command}` wrote this page:

| | {' | '.join(r.store for r in reports)} |
|---|{'---|' * len(reports)}
{table}
"""


@contextmanager
def _server(store: str) -> Iterator[PostgresServer | None]:
    with running_server() if store == "postgres" else nullcontext() as server:
        yield server


def main() -> int:
    """Run on the stores asked for and write the page."""
    parser = argparse.ArgumentParser(description="Kill, stop and cut coordinators and workers under load.")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    options = parser.parse_args()
    reports = []
    for store in ("sqlite", "postgres") if options.store == "both" else (options.store,):
        with tempfile.TemporaryDirectory(prefix="espalier-chaos-") as folder, _server(store) as server:
            database = server.new_database() if server else ""
            found = asyncio.run(chaos(Path(folder), events=options.events, seed=options.seed, database=database))
        print(found, flush=True)
        reports.append(found)
    if options.store == "both":
        PAGE.write_text(page(reports, "make chaos"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
