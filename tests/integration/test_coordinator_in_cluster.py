"""A coordinator that asks a real API server who calls, and the command line that finds it by the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from espalier_api.names import COORDINATOR_AUDIENCE
from espalier_api.schema import KINDS
from espalier_cli.__main__ import app
from espalier_cli.connection import COORDINATOR_MAP
from espalier_coordinator.__main__ import serve
from espalier_coordinator.access import ReviewedAccess
from espalier_coordinator.local import NAME, prepare
from espalier_coordinator.settings import CoordinatorSettings
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.clock import SystemClock
from espalier_kit.errors import EspalierError, Forbidden, NotFound
from espalier_kit.settings import load
from espalier_kube.client import Client
from espalier_kube.cluster import BENCHMARK_JOB
from espalier_local.cluster import Cluster
from espalier_rpc.artifacts import web_client
from espalier_rpc.channels import channel
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.rest import RestClient
from tests.support.controlplane import ROOT, ControlPlane
from tests.support.jobs import grading_job

EXAMPLES = ROOT / "examples/benchmark"
DEADLINE_S = 60.0


@dataclass
class World:
    """A coordinator in this process, known to the cluster by its ConfigMap in namespace `system`."""

    client: Client
    control_plane: Cluster
    system: str
    ca_pem: str
    grpc: int
    web: int

    async def token(self, account: str, namespace: str, audience: str | None = COORDINATOR_AUDIENCE) -> str:
        """Of a new service account."""
        await self.client.create({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace},
        })
        token, _ = await self.client.create_token(account, namespace, audience=audience, expiration_s=600)
        return token

    async def espalier(self, *arguments: str, code: int = 0) -> str:
        """What a person sees of a command."""
        return (await self._run(*arguments, code=code)).output

    async def _run(self, *arguments: str, code: int = 0) -> Result:
        environ = {**os.environ, "ESPALIER_KUBECONFIG": str(self.control_plane.kubeconfig), "COLUMNS": "300",
                   "NO_COLOR": "1"}
        command = [*arguments, "--system-namespace", self.system]
        done = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        assert done.exit_code == code, done.output
        return done

    async def told(self, *arguments: str) -> Any:
        """What a command answers to a program."""
        return json.loads((await self._run(*arguments, "-o", "json")).stdout)

    async def submit(self, folder: Path, namespace: str, name: str, **fields: Any) -> None:
        """A job that no object stands for."""
        path = folder / "job.yaml"
        path.write_text(json.dumps({"name": name, "tasks": [{"key": "a", "type": "sum"}], **fields}))
        await self.espalier("jobs", "submit", str(path), "-n", namespace)

    async def objects(self, namespace: str) -> None:
        """One of each kind, which no operator looks at."""
        assignment, submissions = (f"artifact://{digit * 64}" for digit in "01")
        await self.client.create(grading_job("class", namespace, assignment=assignment, submissions=submissions))
        for path, name in (("endpoint", "load"), ("compare", "versus")):
            *_, made = yaml.safe_load_all((EXAMPLES / f"{path}.yaml").read_text())
            await self.client.create({**made, "metadata": {"name": name, "namespace": namespace}})


@pytest.fixture
def kinds(control_plane: Cluster) -> None:
    """The CRDs."""
    plane = ControlPlane(control_plane.kubeconfig, control_plane.assets)
    plane.must("apply", "-f", str(ROOT / "crds"))
    plane.must("wait", "--for=condition=Established", *(f"crd/{kind.plural}.espalier.dev" for kind in KINDS))


@pytest.fixture
async def world(client: Client, control_plane: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[World]:
    clock, stop = SystemClock(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        grpc, web = one.getsockname()[1], two.getsockname()[1]
    variables = {"HOST": "127.0.0.1", "GRPC_PORT": str(grpc), "HTTP_PORT": str(web)}
    settings = load(CoordinatorSettings, "coordinator", prepare(tmp_path, clock) | {
        f"ESPALIER_COORDINATOR_{name}": value for name, value in variables.items()
    })
    ca_pem = (tmp_path / "tls" / "ca.crt").read_text()
    data = {"web": f"https://127.0.0.1:{web}", "name": NAME, "ca.crt": ca_pem}
    meta = {"name": COORDINATOR_MAP, "namespace": namespace}
    await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    running = asyncio.create_task(
        serve(settings, stop, clock, store=MemoryStore(), access=ReviewedAccess(client, [], clock))
    )
    made = World(client, control_plane, namespace, ca_pem, grpc, web)
    async with asyncio.timeout(DEADLINE_S):
        while await _is_away(web):
            assert not running.done(), running.result()
            await asyncio.sleep(0.05)
    yield made
    stop.set()
    await asyncio.wait_for(running, 20)


async def _is_away(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


async def test_the_namespaces_submitter_submits_and_looks(world: World, namespace: str, tmp_path: Path) -> None:
    job, template = tmp_path / "job.yaml", tmp_path / "template.yaml"
    job.write_text("{name: sums, tasks: [{key: a, type: sum, payload: {n: 1}}]}")
    template.write_text("{required: [n], tasks: [{key: a, type: sum, payload: {n: '{n}'}}]}")
    assert "sums" in await world.espalier("jobs", "submit", str(job), "-n", namespace)
    token = await world.token("job-worker", namespace)
    async with web_client(f"https://127.0.0.1:{world.web}", ca_pem=world.ca_pem) as http:
        worker = RestClient(http, token=lambda: token, server_name=NAME)
        await worker.post("/v1/workers", worker_id="w", capacity=1, types=["sum"])
        (task,) = (await worker.post("/v1/workers/w:pull", max_tasks=1, wait_s=10))["tasks"]
        lease = task["lease"]
        await worker.post(f"/v1/tasks/{lease['task_id']}:report", worker_id="w", attempt=lease["attempt"],
                          success=True, result={"sum": 1})
        with pytest.raises(Forbidden, match="may not submit"):
            await worker.post("/v1/jobs", name="mine")
    listed = json.loads(await world.espalier("tasks", "list", "sums", "-n", namespace, "-o", "json"))
    assert [(t["state"], t["value"], t["worker"]) for t in listed["tasks"]] == [("done", {"sum": 1}, "w")]
    assert "idle" in await world.espalier("workers", "list", "-n", namespace)
    await world.espalier("jobs", "template", "put", "sum", str(template), "-n", namespace)
    assert "1" in await world.espalier("jobs", "template", "submit", "sum", "-p", "n=2", "-n", namespace)


async def test_jobs_of_the_cluster_and_of_its_coordinator_alone_are_one_list(
    world: World, namespace: str, kinds: None, tmp_path: Path
) -> None:
    await world.objects(namespace)
    await world.submit(tmp_path, namespace, "sums", tags=["nightly"])
    listed = await world.espalier("jobs", "list", "-n", namespace)
    assert {tuple(line.split()[1:3]) for line in listed.splitlines()[1:]} == {
        ("gj", "class"), ("bj", "load"), ("bmc", "versus"), ("job", "sums"),
    }
    told = await world.told("jobs", "list", "-n", namespace)
    assert ([item["metadata"]["name"] for item in told["items"]], [job["name"] for job in told["jobs"]]) == (
        ["class", "load", "versus"], ["sums"],
    )
    for words, names in (
        (("bj",), ["load"]), (("bmc",), ["versus"]), (("job",), ["sums"]), (("--tag", "nightly"), ["sums"]),
        (("--tag", "other"), []), (("--status", "running"), ["sums"]), (("--status", "failed"), []),
        (("--status", "pending"), ["class", "load", "versus", "sums"]), (("--status", "admitting"), []),
    ):
        told = await world.told("jobs", "list", *words, "-n", namespace)
        assert [i["metadata"]["name"] for i in told["items"]] + [j["name"] for j in told["jobs"]] == names, words
    everywhere = await world.told("jobs", "list", "-A")
    assert [j["name"] for j in everywhere["jobs"] if j["namespace"] == namespace] == ["sums"]


async def test_a_job_without_an_object_is_shown_steered_and_followed(
    world: World, namespace: str, kinds: None, tmp_path: Path
) -> None:
    await world.submit(tmp_path, namespace, "sums")
    uid = (await world.told("jobs", "show", "sums", "-n", namespace))["uid"]
    assert (await world.told("jobs", "show", uid, "-n", namespace))["name"] == "sums"
    for command, state in (("suspend", "suspended"), ("resume", "running")):
        assert "job sums will" in await world.espalier("jobs", command, "sums", "-n", namespace)
        assert (await world.told("jobs", "show", "sums", "-n", namespace))["state"] == state
    await world.espalier("jobs", "cancel", "sums", "--reason", "a wrong file", "-n", namespace)
    assert "a wrong file" in await world.espalier("jobs", "show", "sums", "-n", namespace)
    assert "sums: cancelled" in await world.espalier("jobs", "watch", "sums", "-n", namespace, code=1)
    said = await world.espalier("jobs", "show", "nobody", "-n", namespace, code=1)
    assert "no GradingJob or BenchmarkJob or BenchmarkComparison nobody" in said
    assert "the coordinator has no job 'nobody'" in said


async def test_an_object_keeps_no_reason_and_is_followed_as_json(world: World, namespace: str, kinds: None) -> None:
    await world.objects(namespace)
    said = await world.espalier("jobs", "cancel", "load", "--reason", "late", "-n", namespace, code=1)
    assert "BenchmarkJob load has no field for it" in said
    status = {"phase": "Complete", "progressPercent": 100, "conditions": [
        {"type": "Complete", "status": "True", "reason": "Finished", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ]}  # fmt: skip
    await world.client.patch(BENCHMARK_JOB, "load", namespace, {"status": status}, subresource="status")
    *_, last = (await world.espalier("jobs", "watch", "bj/load", "-o", "json", "-n", namespace)).splitlines()
    assert json.loads(last)["status"]["phase"] == "Complete"


async def test_tasks_of_an_object_are_named_as_the_object_is(
    world: World, namespace: str, kinds: None, tmp_path: Path
) -> None:
    await world.submit(tmp_path, namespace, "load", uid="u-1", kind="BenchmarkJob")  # as the operator does
    await world.submit(tmp_path, namespace, "load", uid="u-2")
    told = await world.told("tasks", "list", "bj/load", "-n", namespace)
    assert [task["job_uid"] for task in told["tasks"]] == ["u-1"]
    assert "2 jobs have the name 'load'" in await world.espalier("tasks", "list", "load", "-n", namespace, code=1)
    assert "u-2" in await world.espalier("tasks", "list", "u-2", "-o", "json", "-n", namespace)


@pytest.mark.parametrize("way", ["grpc", "rest"])
async def test_a_token_for_somebody_else_or_of_elsewhere_opens_nothing(world: World, namespace: str, way: str) -> None:
    await world.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-b"}})
    own = await world.token("worker", namespace)
    wrong = await world.token("no-audience", namespace, audience=None)
    stolen = await world.token("worker", f"{namespace}-b")

    async def ask(token: str, rpc: str, path: str, **fields: Any) -> Any:
        if way == "grpc":
            wire = channel(f"127.0.0.1:{world.grpc}", ca_pem=world.ca_pem, server_name=NAME, token=lambda: token)
            client = CoordinatorClient(wire)
            try:
                return await client.call(rpc, **fields)
            finally:
                await client.close()
        async with web_client(f"https://127.0.0.1:{world.web}", ca_pem=world.ca_pem) as http:
            return await RestClient(http, token=lambda: token, server_name=NAME).post(path, **fields)

    await ask(own, "RegisterWorker", "/v1/workers", worker_id="w", capacity=1, types=["t"])
    for token, kind, words in ((wrong, Forbidden, "audience"), (stolen, NotFound, "no worker 'w'")):
        with pytest.raises(EspalierError, match=words) as caught:
            await ask(token, "PullTasks", "/v1/workers/w:pull", worker_id="w", max_tasks=1)
        assert isinstance(caught.value, kind)
    with pytest.raises(Forbidden, match=f"not in '{namespace}'"):
        await ask(stolen, "RegisterWorker", "/v1/workers", worker_id="w", capacity=1, types=["t"], namespace=namespace)
