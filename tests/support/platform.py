"""The whole platform on a local cluster, as life stories drive it: push, apply, wait, read the report."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from espalier_cli.connection import artifacts_of, submitter_token
from espalier_cli.options import Where
from espalier_cli.packing import pack
from espalier_cli.push import store_file
from espalier_cli.report import index_of, parse, rows_of
from espalier_kube.client import Client
from espalier_kube.cluster import CONFIG_MAP, GRADING_JOB, Object
from espalier_local.cluster import Cluster
from espalier_rpc.artifacts import web_client
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
        where = Where(self.local.kubeconfig, namespace)
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "content.tar.gz"
            pack(classroom.laid_out(files, Path(folder) / "content"), archive)
            async with artifacts_of(self.cluster, where) as store:
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
        assignment = await self.push(namespace, bundle or classroom.bundle())
        submissions = await self.push(namespace, students)
        made = await self.cluster.create(
            grading_job(name, namespace, assignment=assignment, submissions=submissions, **spec)
        )
        return Job(name, namespace, made["metadata"]["uid"])

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
        async with artifacts_of(self.cluster, Where(self.local.kubeconfig, job.namespace)) as store:
            files = await index_of(store, found)
            report = parse(await store.get(files["report.json"]), "report.json")
            names = parse(await store.get(files["restricted/names.json"]), "names")
        return [asdict(row) for row in rows_of(report, names)]

    async def tasks(self, job: Job) -> list[dict[str, Any]]:
        """The coordinator's tasks of the job, over its REST page."""
        status, body = await self._coordinator(job.namespace, f"/v1/jobs/{job.uid}/tasks")
        assert status == 200, body
        found: list[dict[str, Any]] = json.loads(body)["tasks"]
        return found

    async def work(self, namespace: str, uid: str) -> dict[str, Any]:
        """The coordinator's view of the job of that object, over its REST page."""
        status, body = await self._coordinator(namespace, f"/v1/jobs/{uid}")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    async def is_forgotten(self, job: Job) -> bool:
        """Whether the coordinator no longer knows the job."""
        status, _ = await self._coordinator(job.namespace, f"/v1/jobs/{job.uid}")
        return status == 404

    def rss_mib(self, word: str) -> list[float]:
        """Resident memory of each process of that program."""
        return [psutil.Process(pid).memory_info().rss / 2**20 for pid in self.processes(word)]

    async def _coordinator(self, namespace: str, path: str) -> tuple[int, str]:
        found = (await self.cluster.get(CONFIG_MAP, "espalier-coordinator", SYSTEM))["data"]
        token = await submitter_token(self.cluster, namespace)
        async with web_client(found["web"], ca_pem=found["ca.crt"]) as http:
            answer = await http.get(
                path, headers={"Authorization": f"Bearer {token}"}, extensions={"sni_hostname": found["name"]}
            )
        return answer.status_code, answer.text
