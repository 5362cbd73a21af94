"""The operator as a process against a real API server: no agents, no coordinator, nodes that are only written down."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from espalier_kube.client import Client
from espalier_kube.cluster import (
    CONFIG_MAP,
    CSR,
    DEPLOYMENT,
    GRADING_JOB,
    JOB,
    LEASE,
    MODEL_SERVER,
    NODE,
    SECRET,
    Kind,
    Object,
)
from espalier_kube.objects import metadata, micro_timestamp, typed
from espalier_kube.signing import SERVING_SIGNER, SERVING_USAGES, Subject, make_request, request_object
from espalier_local.api import apply
from espalier_local.cluster import Cluster
from tests.support.jobs import grading_job
from tests.support.waiting import condition, has, until, until_event, until_gone

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "artifact://" + "0" * 64
READY_S = 60
LEASE_S = 60
"""A dead holder's Lease runs out after 15 s; the machine may be busy."""
MANY = 60
RSS_MIB = 150


class Operator:
    """One process; `port` is its health page's."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self.log = process, log
        self.port = 0

    async def until_says(self, what: str) -> re.Match[str]:
        """The first log line that matches."""
        async with asyncio.timeout(READY_S):
            while True:
                found = re.search(what, self.log.read_text())
                if found:
                    return found
                assert self.process.returncode is None, self.log.read_text()[-3000:]
                await asyncio.sleep(0.1)  # a file has no event to wait for

    async def page(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"http://127.0.0.1:{self.port}{path}")

    async def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(READY_S):
            return await self.process.wait()


@pytest.fixture(scope="module")
def system(control_plane: Cluster) -> str:
    """A namespace for the operator, with the CRDs there."""
    for name in ("gradingjobs", "benchmarkjobs", "benchmarkcomparisons", "modelservers"):
        apply(control_plane.kubeconfig, list(yaml.safe_load_all((ROOT / f"crds/{name}.yaml").read_text())))
    name = f"system-{secrets.token_hex(3)}"
    apply(control_plane.kubeconfig, [typed(Kind("", "v1", "Namespace", "namespaces"), metadata(name, None))])
    return name


@asynccontextmanager
async def running(control_plane: Cluster, system: str, folder: Path, name: str) -> AsyncIterator[Operator]:
    token = folder / "token"
    token.write_text("none")
    settings = {
        "HOST": "127.0.0.1", "PORT": "0", "NAMESPACE": system, "POD_NAME": name, "TOKEN_FILE": str(token),
        "COORDINATOR": "127.0.0.1:9", "COORDINATOR_WEB": "https://127.0.0.1:9", "COORDINATOR_NAME": f"c.{system}.svc",
        "NODE_ADDRESSES": "127.0.0.0/8", "WORKER_IMAGE": "espalier-worker:test", "MLX_IMAGE": "espalier-mlx:test",
        "KUBECONFIG": str(control_plane.kubeconfig),
    }
    environment = {f"ESPALIER_OPERATOR_{key}": value for key, value in settings.items()}
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "espalier_operator", stderr=stream, env={**os.environ, **environment}
        )
    operator = Operator(process, log)
    try:
        operator.port = int((await operator.until_says(r'"port": (\d+)'))[1])
        yield operator
    finally:
        await operator.end(signal.SIGKILL)


@pytest.fixture
async def operator(control_plane: Cluster, system: str, tmp_path: Path) -> AsyncIterator[Operator]:
    async with running(control_plane, system, tmp_path, "operator-a") as started:
        await started.until_says("lease acquired")
        yield started
        assert await started.end() == 0, started.log.read_text()[-3000:]


@asynccontextmanager
async def macs(client: Client, count: int) -> AsyncIterator[list[str]]:
    """Nodes that are only written down; they stay Ready for longer than a test lasts."""
    names = [f"mac-{secrets.token_hex(3)}" for _ in range(count)]
    for name in names:
        labels = {"espalier.dev/node-kind": "mlx", "espalier.dev/simulated": "true"}
        made = await client.create(typed(NODE, metadata(name, None, labels=labels), spec={}))
        now = made["metadata"]["creationTimestamp"]
        ready = {
            "type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        status = {"allocatable": {"espalier.dev/metal": "1"}, "conditions": [ready]}
        await client.patch(NODE, name, None, {"status": status}, subresource="status")
    try:
        yield names
    finally:
        for name in names:
            await client.delete(NODE, name)


@pytest.fixture
async def no_macs(client: Client) -> AsyncIterator[None]:
    """The nodes that other tests may have brought up are cordoned meanwhile; ask for it before `operator`."""
    nodes = await client.list(NODE, labels="espalier.dev/node-kind=mlx")
    names = [node["metadata"]["name"] for node in nodes.items]
    for name in names:
        await client.patch(NODE, name, None, {"spec": {"unschedulable": True}})
    yield
    for name in names:
        await client.patch(NODE, name, None, {"spec": {"unschedulable": None}})


def job(name: str, namespace: str, **spec: object) -> Object:
    return grading_job(name, namespace, assignment=DIGEST, submissions=DIGEST, **spec)


async def test_it_prepares_its_namespace_and_says_that_it_is_well(operator: Operator, client: Client, system) -> None:
    secret = await until(
        client, SECRET, system, "espalier-coordinator-tls", lambda _: True, timeout_s=READY_S, what="certificate"
    )
    assert sorted(secret["data"]) == ["ca.crt", "tls.crt", "tls.key"]
    told = await until(
        client, CONFIG_MAP, system, "espalier-coordinator", lambda _: True, timeout_s=READY_S, what="address"
    )
    assert sorted(told["data"]) == ["ca.crt", "grpc", "name", "web"]
    assert (await operator.page("/healthz")).status_code == 200
    assert "espalier_operator_leader 1.0" in (await operator.page("/metrics")).text


async def test_a_job_waits_for_macs_gets_them_and_leaves_nothing(
    no_macs: None, operator: Operator, client: Client, namespace: str
) -> None:
    await client.create(job("week-1", namespace))
    waiting = await until(
        client, GRADING_JOB, namespace, "week-1", has("Progressing", "False", "WaitingForNodes"), timeout_s=READY_S,
        what="WaitingForNodes",
    )
    assert "needs 2 Macs, but the cluster has 0 Ready" in condition(waiting, "Progressing")["message"]
    workers = await client.get(JOB, "week-1-worker", namespace)
    assert workers["spec"]["suspend"] is True
    async with macs(client, 2):
        for server in ("week-1-code", "week-1-feedback"):
            await until(client, DEPLOYMENT, namespace, server, lambda _: True, timeout_s=READY_S, what="Deployment")
            await until(
                client, MODEL_SERVER, namespace, server, has("Ready", "False", "EndpointNotReady"), timeout_s=READY_S,
                what="Ready=False",
            )
        await until(
            client, JOB, namespace, "week-1-worker", lambda o: not o["spec"]["suspend"], timeout_s=READY_S,
            what="workers",
        )
        await client.delete(GRADING_JOB, "week-1", namespace)
        for kind in (JOB, MODEL_SERVER, DEPLOYMENT):
            await until_gone(client, kind, namespace, timeout_s=READY_S)


async def test_suspended_jobs_cost_one_write_each_and_kopf_leaves_no_trace(
    operator: Operator, client: Client, namespace: str
) -> None:
    for number in range(MANY):
        await client.create(job(f"many-{number:03d}", namespace, runPolicy={"suspend": True}))
    for number in range(MANY):
        made = await until(
            client, GRADING_JOB, namespace, f"many-{number:03d}", has("Suspended", "True", "SuspendedByUser"),
            timeout_s=READY_S, what="Suspended",
        )
        assert not made["metadata"].get("annotations")
        assert not made["metadata"].get("finalizers")
        managers = [(m["manager"], m.get("subresource")) for m in made["metadata"]["managedFields"]]
        assert managers.count(("espalier", "status")) == 1
    assert len((await client.list(JOB, namespace)).items) == MANY
    assert (await client.list(MODEL_SERVER, namespace)).items == ()
    assert "status_writes_per_object_max 1.0" in (await operator.page("/metrics")).text
    assert psutil.Process(operator.process.pid).memory_info().rss / 2**20 <= RSS_MIB


async def test_serving_certificates_are_judged_by_the_administrators_addresses(
    operator: Operator, client: Client, kubectl
) -> None:
    verdicts = {}
    for address in ("127.0.0.7", "10.9.9.9"):
        name, node = f"csr-{secrets.token_hex(3)}", "system:node:mac-x"
        request, _ = make_request(Subject(node, ("system:nodes",), ("mac-x", address)))
        body = yaml.safe_dump(request_object(name, request, signer=SERVING_SIGNER, usages=SERVING_USAGES))
        kubectl("create", "-f", "-", f"--as={node}", "--as-group=system:nodes", stdin=body)
        decided = await until(
            client, CSR, None, name, lambda o: bool(o.get("status", {}).get("conditions")), timeout_s=READY_S,
            what="verdict",
        )
        verdicts[address] = [(c["type"], c["reason"]) for c in decided["status"]["conditions"]]
    assert verdicts["127.0.0.7"] == [("Approved", "CertificateApproved")]
    assert verdicts["10.9.9.9"] == [("Denied", "CertificateDenied")]
    await until_event(
        client, "default", lambda e: e["reason"] == "CertificateDenied", timeout_s=READY_S, what="CertificateDenied"
    )


async def test_a_second_replica_stands_by_and_takes_over(
    control_plane: Cluster, client: Client, system: str, namespace: str, tmp_path: Path
) -> None:
    async with (
        running(control_plane, system, tmp_path, "first") as first,
        running(control_plane, system, tmp_path, "second") as second,
    ):
        holder = await until(
            client, LEASE, system, "espalier-operator", _is_held, timeout_s=READY_S, what="a holder"
        )
        leader, standby = (first, second) if _holder(holder).startswith("first") else (second, first)
        assert (await standby.page("/readyz")).status_code == 200
        assert "espalier_operator_leader 0.0" in (await standby.page("/metrics")).text
        before = _holder(holder)
        await leader.end(signal.SIGKILL)
        await until(
            client, LEASE, system, "espalier-operator", lambda o: _holder(o) not in ("", before), timeout_s=LEASE_S,
            what="another holder",
        )
        await client.create(job("after", namespace, runPolicy={"suspend": True}))
        await until(
            client, GRADING_JOB, namespace, "after", has("Suspended"), timeout_s=READY_S, what="work by the successor"
        )
        assert await standby.end() == 0
        released = await client.get(LEASE, "espalier-operator", system)
        assert _holder(released) == ""


async def test_whoever_loses_the_lease_stops_and_exits(
    control_plane: Cluster, client: Client, system: str, tmp_path: Path
) -> None:
    async with running(control_plane, system, tmp_path, "loser") as operator:
        held = await until(
            client, LEASE, system, "espalier-operator", lambda o: _holder(o).startswith("loser"), timeout_s=LEASE_S,
            what="the Lease",
        )
        taken = {**held["spec"], "holderIdentity": "somebody-else", "renewTime": micro_timestamp(datetime.now(UTC))}
        await client.patch(LEASE, "espalier-operator", system, {"spec": taken})
        async with asyncio.timeout(READY_S):
            assert await operator.process.wait() == 1
        assert "holds the operator's Lease" in operator.log.read_text()
        await client.delete(LEASE, "espalier-operator", system)


async def test_wrong_settings_are_said_in_a_sentence() -> None:
    environment = {**os.environ, "ESPALIER_OPERATOR_NAMESPACE": "x", "ESPALIER_OPERATOR_COLOUR": "red"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "espalier_operator", "--check-settings", stderr=asyncio.subprocess.PIPE, env=environment
    )
    _, said = await process.communicate()
    assert process.returncode == 78
    assert b"ESPALIER_OPERATOR_COLOUR" in said
    assert b"ESPALIER_OPERATOR_COORDINATOR" in said


def _holder(lease: Object) -> str:
    return str(lease.get("spec", {}).get("holderIdentity") or "")


def _is_held(lease: Object) -> bool:
    return bool(_holder(lease))
