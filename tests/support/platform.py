"""The whole platform on a local cluster, as life stories drive it: push, apply, wait, read the report."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from espalier_cli.connection import artifacts_of, rest_of
from espalier_cli.options import Where
from espalier_cli.packing import pack
from espalier_cli.push import store_file
from espalier_cli.report import index_of, parse, rows_of
from espalier_kit.errors import NotFound
from espalier_kube.client import Client
from espalier_kube.cluster import GRADING_JOB, Object
from espalier_local.cluster import Cluster
from tests.support import classroom, processes
from tests.support.jobs import grading_job
from tests.support.waiting import Predicate, until

SYSTEM = "espalier-system"


@dataclass(frozen=True)
class Job:
    """A GradingJob that was applied."""

    name: str
    namespace: str
    uid: str


@dataclass(frozen=True)
class Platform:
    """One local cluster with our charts on it."""

    local: Cluster
    cluster: Client

    def processes(self, word: str, *texts: str) -> list[int]:
        """Pids of that program in this cluster; each of `texts` stands in its environment."""
        return processes.find(word, self._marker(word), *texts)

    def kill(self, word: str, *texts: str) -> list[int]:
        """kill -9 them; fails when there is none."""
        return processes.kill(word, self._marker(word), *texts)

    def _marker(self, word: str) -> str:
        # Agents carry the cluster's directory; programs in pods have a clean environment, with their own address in it.
        addresses = self.local.address_range.cidr.split(".0.0/")[0] + "."
        return str(self.local.control.layout.root) if word == "node" else addresses

    async def push(self, namespace: str, files: dict[str, bytes]) -> str:
        """The artifact address of these files."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "content.tar.gz"
            pack(classroom.laid_out(files, Path(folder) / "content"), archive)
            async with artifacts_of(self.cluster, self._where(namespace)) as store:
                return await store_file(store, archive)

    async def submit(
        self,
        namespace: str,
        name: str,
        *,
        students: dict[str, bytes],
        bundle: dict[str, bytes] | None = None,
        **spec: Any,
    ) -> Job:
        """Push a class and apply a GradingJob over it."""
        return await self.apply(await self.prepare(namespace, name, students=students, bundle=bundle, **spec))

    async def prepare(
        self, namespace: str, name: str, *, students: dict[str, bytes], bundle: dict[str, bytes] | None = None,
        **spec: Any,
    ) -> Object:
        """Push a class; the GradingJob over it, which nobody has applied."""
        assignment = await self.push(namespace, bundle or classroom.bundle())
        submissions = await self.push(namespace, students)
        return grading_job(name, namespace, assignment=assignment, submissions=submissions, **spec)

    async def apply(self, wished: Object) -> Job:
        """Create what was prepared."""
        meta = (await self.cluster.create(wished))["metadata"]
        return Job(meta["name"], meta["namespace"], meta["uid"])

    async def until(self, job: Job, predicate: Predicate, *, timeout_s: float, what: str) -> Object:
        """The GradingJob once `predicate` holds."""
        return await until(
            self.cluster, GRADING_JOB, job.namespace, job.name, predicate, timeout_s=timeout_s, what=what
        )

    async def set_run_policy(self, job: Job, **policy: Any) -> None:
        """Change spec.runPolicy as `kubectl patch` would."""
        await self.cluster.patch(GRADING_JOB, job.name, job.namespace, {"spec": {"runPolicy": policy}})

    async def report_rows(self, job: Job) -> list[dict[str, Any]]:
        """The report's rows, students' names joined back."""
        found = await self.cluster.get(GRADING_JOB, job.name, job.namespace)
        async with artifacts_of(self.cluster, self._where(job.namespace)) as store:
            files = await index_of(store, found)
            report = parse(await store.get(files["report.json"]), "report.json")
            names = parse(await store.get(files["restricted/names.json"]), "names")
        return [asdict(row) for row in rows_of(report, names)]

    async def tasks(self, job: Job) -> list[dict[str, Any]]:
        """The coordinator's tasks of the job, by its REST calls."""
        async with rest_of(self.cluster, self._where(job.namespace)) as rest:
            found: list[dict[str, Any]] = (await rest.get(f"/v1/jobs/{job.uid}/tasks"))["tasks"]
        return found

    async def work(self, namespace: str, uid: str) -> dict[str, Any]:
        """The coordinator's view of the job of that object, by its REST calls."""
        async with rest_of(self.cluster, self._where(namespace)) as rest:
            return await rest.get(f"/v1/jobs/{uid}")

    async def is_forgotten(self, job: Job) -> bool:
        """Whether the coordinator no longer knows the job."""
        try:
            await self.work(job.namespace, job.uid)
        except NotFound:
            return True
        return False

    def rss_mib(self, word: str) -> list[float]:
        """Resident memory of each process of that program."""
        return [psutil.Process(pid).memory_info().rss / 2**20 for pid in self.processes(word)]

    def _where(self, namespace: str) -> Where:
        return Where(self.local.kubeconfig, namespace)
