"""The real coordinator process over TLS on loopback, with real clients."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bench.coordinator_process import CoordinatorProcess, stub
from bench.load import TYPE, Book, NoOpWorker, submit, view, work
from espalier_api.names import COORDINATOR_AUDIENCE
from espalier_coordinator.access import Identity, ReviewedAccess
from espalier_coordinator.local import NAME
from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import SystemClock
from espalier_kit.digest import sha256
from espalier_kit.errors import Forbidden, NotFound
from espalier_kube.client import Client
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.v1 import coordinator_pb2 as pb

if TYPE_CHECKING:  # exists for type checkers only
    from espalier_rpc.v1.coordinator_pb2_grpc import CoordinatorAsyncStub

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorProcess]:
    """One process for the tests that leave it alive."""
    running = CoordinatorProcess(tmp_path_factory.mktemp("coordinator"))
    running.start()
    yield running
    running.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[CoordinatorProcess]:
    """A process of the test's own, to kill."""
    running = CoordinatorProcess(tmp_path / "own")
    running.start()
    yield running
    running.close()


@pytest.fixture
async def admin(process: CoordinatorProcess) -> AsyncIterator[CoordinatorAsyncStub]:
    async with process.channel("admin") as channel:
        yield stub(channel)


@pytest.fixture
async def worker(process: CoordinatorProcess) -> AsyncIterator[CoordinatorAsyncStub]:
    async with process.channel("worker") as channel:
        yield stub(channel)


def specs(count: int) -> list[pb.TaskSpec]:
    return [pb.TaskSpec(key=str(n), type=TYPE, payload=b"{}") for n in range(count)]


def job(uid: str, *tasks: pb.TaskSpec, namespace: str = "default") -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(uid=uid, namespace=namespace, name=uid, tasks=tasks, retries=3)


@pytest.mark.parametrize("kills", [1, 3])
async def test_killed_under_load_every_task_has_exactly_one_accepted_result(
    own: CoordinatorProcess, kills: int
) -> None:
    tasks = 6_000
    await submit(own, "job", specs(tasks))
    book = Book()
    workers = [NoOpWorker(own, book, name=f"w{n}", job_uid="job", window=20) for n in range(6)]

    async def kill() -> None:
        for number in range(kills):
            reached = book.acked_after.setdefault(tasks * (number + 1) // (kills + 2), asyncio.Event())
            await reached.wait()
            own.kill()
            await asyncio.to_thread(own.start)

    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        group.create_task(work(workers))
        group.create_task(kill())
    done = await view(own, "job")
    assert (done.state, done.counts.done, done.tallies["n"]) == ("complete", tasks, tasks)
    assert done.epoch.startswith(f"{kills + 1}-")
    assert len(book.executions) == tasks
    async with own.channel("admin") as channel:
        told = await stub(channel).ListTasks(pb.ListTasksRequest(job_uid="job"))
    assert len({t.id for t in told.tasks}) == len(told.tasks) == tasks


async def test_terminated_it_leaves_at_once_with_streams_open(own: CoordinatorProcess) -> None:
    await submit(own, "job", specs(1))
    async with own.channel("worker") as channel:
        call = stub(channel).Session()
        await call.write(pb.WorkerMessage(hello=pb.Hello(worker_id="w", capacity=1, types=[TYPE])))
        assert (await call.read()).WhichOneof("kind") == "welcome"
        started = time.monotonic()
        assert await asyncio.to_thread(own.stop) == 0
        assert time.monotonic() - started < 5
        call.cancel()


async def test_a_renewed_certificate_is_served_without_a_restart(own: CoordinatorProcess) -> None:
    now = SystemClock().now()
    authority = make_authority("renewed", now)
    pair = issue(authority, NAME, now, hosts=[NAME], is_server=True)
    for name, data in (("ca.crt", authority.certificate), ("tls.key", pair.key), ("tls.crt", pair.certificate)):
        (own.folder / "tls" / name).write_bytes(data)
    await submit(own, "job", specs(1))
    assert (await view(own, "job")).counts.pending == 1


def test_a_port_in_use_is_a_sentence(process: CoordinatorProcess, tmp_path: Path) -> None:
    variables = {"HOST": "127.0.0.1", "GRPC_PORT": str(process.grpc_port), "HTTP_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "espalier_coordinator", "--local", str(tmp_path / "second")],
        env={**os.environ, **{f"ESPALIER_COORDINATOR_{k}": v for k, v in variables.items()}},
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert done.returncode == 78
    assert f"cannot listen on 127.0.0.1:{process.grpc_port}" in done.stderr


# ---------------------------------------------------------------- calls


async def test_a_job_is_submitted_seen_listed_steered_and_deleted(admin: CoordinatorAsyncStub) -> None:
    made = await admin.SubmitJob(job("j1", *specs(3)))
    assert (made.state, made.counts.pending) == ("running", 3)
    assert (await admin.UpdateJob(pb.UpdateJobRequest(uid="j1", suspended=True, priority=4))).state == "suspended"
    listed = await admin.ListJobs(pb.ListJobsRequest(namespace="default"))
    assert [(j.uid, j.priority) for j in listed.jobs if j.uid == "j1"] == [("j1", 4)]
    assert (await admin.UpdateJob(pb.UpdateJobRequest(uid="j1", cancel=True))).state == "cancelled"
    await admin.DeleteJob(pb.DeleteJobRequest(uid="j1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.GetJob(pb.GetJobRequest(uid="j1"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_client_sees_more_jobs_than_one_page_has(own: CoordinatorProcess) -> None:
    async with own.channel("admin") as channel:
        calls = stub(channel)
        await asyncio.gather(*(calls.SubmitJob(job(f"j{n}")) for n in range(1010)))
        first = await calls.ListJobs(pb.ListJobsRequest())
        assert (len(first.jobs), bool(first.next_page_token)) == (1000, True)
        assert len({view.uid for view in (await CoordinatorClient(channel).list()).jobs}) == 1010
        counted = await calls.GetClusterStats(pb.GetClusterStatsRequest())
        assert (counted.total_jobs, counted.completed_jobs) == (1010, 1010)


@pytest.mark.parametrize(("request_", "code", "sentence"), [
    (pb.SubmitJobRequest(uid="x", retries=-1), grpc.StatusCode.INVALID_ARGUMENT, "cannot be negative"),
    (job("x", pb.TaskSpec(key="a", type="t", payload=b"[1]")), grpc.StatusCode.INVALID_ARGUMENT, "JSON object"),
    (job("x", pb.TaskSpec(key="a", type="t", depends_on=[pb.Dependency(key="a")])),
     grpc.StatusCode.INVALID_ARGUMENT, "in a circle"),
    (job("x", pb.TaskSpec(key="a", type="t", depends_on=[pb.Dependency(key="b", when="maybe")])),
     grpc.StatusCode.INVALID_ARGUMENT, "maybe"),
    (job("x", pb.TaskSpec(key="a", type="t", payload=b'{"x": "' + b"x" * 300_000 + b'"}')),
     grpc.StatusCode.INVALID_ARGUMENT, "artifact"),
], ids=["negative retries", "no object", "cycle", "unknown condition", "large payload"])
async def test_bad_jobs_are_refused_with_a_sentence(
    admin: CoordinatorAsyncStub, request_: pb.SubmitJobRequest, code: grpc.StatusCode, sentence: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as caught:
        await admin.SubmitJob(request_)
    assert caught.value.code() is code


async def test_watching_tells_every_job_then_changes_at_most_once_a_second(admin: CoordinatorAsyncStub) -> None:
    await admin.SubmitJob(job("watched", *specs(1)))
    watch = admin.WatchJobs(pb.WatchJobsRequest())
    async with asyncio.timeout(DEADLINE_S):
        while (await watch.read()).uid != "watched":
            pass
        seen: list[tuple[float, int]] = []
        for priority in range(1, 30):
            await admin.UpdateJob(pb.UpdateJobRequest(uid="watched", priority=priority))
        while not seen or seen[-1][1] != 29:
            told = await watch.read()
            if told.uid == "watched":
                seen.append((time.monotonic(), told.priority))
    watch.cancel()
    assert len(seen) <= 3
    assert all(later - earlier > 0.9 for (earlier, _), (later, _) in pairwise(seen))


async def test_health_and_reflection(process: CoordinatorProcess) -> None:
    async with process.channel("worker") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "espalier.v1.Coordinator"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await reflected.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {s.name for s in (await reflected.read()).list_services_response.service}
        reflected.cancel()
    assert "espalier.v1.Coordinator" in names


# ---------------------------------------------------------------- who may what


async def test_workers_may_neither_submit_nor_steer(worker: CoordinatorAsyncStub, admin: CoordinatorAsyncStub) -> None:
    await admin.SubmitJob(job("mine", *specs(1)))
    for call in (worker.SubmitJob(job("theirs")), worker.UpdateJob(pb.UpdateJobRequest(uid="mine", cancel=True)),
                 worker.DeleteJob(pb.DeleteJobRequest(uid="mine"))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (await worker.GetJob(pb.GetJobRequest(uid="mine"))).state == "running"


async def test_workers_see_and_run_only_what_is_of_their_namespace(
    worker: CoordinatorAsyncStub, admin: CoordinatorAsyncStub
) -> None:
    await admin.SubmitJob(job("elsewhere", pb.TaskSpec(key="a", type="only-elsewhere"), namespace="other"))
    await admin.SubmitJob(job("here", pb.TaskSpec(key="a", type="only-here")))
    with pytest.raises(grpc.aio.AioRpcError, match="may only act in namespace"):
        await worker.GetJob(pb.GetJobRequest(uid="elsewhere"))
    assert "elsewhere" not in [j.uid for j in (await worker.ListJobs(pb.ListJobsRequest())).jobs]
    call = worker.Session()
    hello = pb.Hello(worker_id="nosy", capacity=9, types=["only-elsewhere", "only-here"])
    await call.write(pb.WorkerMessage(hello=hello))
    await call.write(pb.WorkerMessage(want=pb.Want(n=9)))
    async with asyncio.timeout(DEADLINE_S):
        while not (message := await call.read()).HasField("tasks"):
            pass
    call.cancel()
    assert [t.job_uid for t in message.tasks.tasks] == ["here"]


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_without_a_known_token_nothing_is_answered(process: CoordinatorProcess, token: str) -> None:
    credentials = grpc.ssl_channel_credentials((process.folder / "tls" / "ca.crt").read_bytes())
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.enable_http_proxy", 0)]
    metadata = (("authorization", f"Bearer {token}"),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{process.grpc_port}", credentials, options=options) as channel:
        calls = stub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.ListJobs(pb.ListJobsRequest(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        call = calls.Session(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_session_begins_with_hello(worker: CoordinatorAsyncStub) -> None:
    call = worker.Session()
    await call.write(pb.WorkerMessage(want=pb.Want(n=1)))
    with pytest.raises(grpc.aio.AioRpcError, match="say Hello first"):
        await call.read()


async def test_the_api_server_decides_who_a_token_is(client: Client, namespace: str) -> None:
    await client.create({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "job-worker", "namespace": namespace},
    })
    user = f"system:serviceaccount:{namespace}:job-worker"
    token, _ = await client.create_token("job-worker", namespace, audience=COORDINATOR_AUDIENCE, expiration_s=600)
    access = ReviewedAccess(client, ["somebody-else"], SystemClock())
    assert await access.identify(token) == Identity(user, namespace)
    assert (await ReviewedAccess(client, [user], SystemClock()).identify(token)).is_admin
    other, _ = await client.create_token("job-worker", namespace, audience=None, expiration_s=600)
    for wrong in (other, "nonsense"):
        with pytest.raises(Forbidden) as caught:
            await access.identify(wrong)
        assert caught.value.reason == "Unauthenticated"


# ---------------------------------------------------------------- HTTP


@pytest.fixture
async def http(process: CoordinatorProcess) -> AsyncIterator[httpx.AsyncClient]:
    ca_pem = (process.folder / "tls" / "ca.crt").read_text()
    async with web_client(f"https://127.0.0.1:{process.http_port}", ca_pem=ca_pem) as client:
        yield client


def store(http: httpx.AsyncClient, process: CoordinatorProcess, namespace: str = "default") -> HttpArtifacts:
    token = (process.folder / "worker.token").read_text()
    return HttpArtifacts(http, namespace=namespace, token=lambda: token, server_name=NAME)


async def test_artifacts_come_back_as_they_went(http: httpx.AsyncClient, process: CoordinatorProcess) -> None:
    artifacts = store(http, process)
    data = os.urandom(5_000_000)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70_000):
            yield data[start:start + 70_000]

    assert await artifacts.put(chunks()) == sha256(data)
    assert await artifacts.put(data) == sha256(data)
    assert await artifacts.get(sha256(data)) == data
    assert await artifacts.exists(sha256(data))
    assert not await artifacts.exists(sha256(b"absent"))
    with pytest.raises(NotFound):
        await artifacts.get(sha256(b"absent"))
    with pytest.raises(Forbidden):
        await store(http, process, "other").get(sha256(data))
    assert (process.folder / "data" / "artifacts" / "default" / sha256(data)).read_bytes() == data


async def test_health_metrics_and_jobs_over_http(
    http: httpx.AsyncClient, process: CoordinatorProcess, admin: CoordinatorAsyncStub
) -> None:
    await admin.SubmitJob(job("over-http", *specs(2)))
    headers = {"authorization": f"Bearer {(process.folder / 'worker.token').read_text()}"}
    extensions = {"sni_hostname": NAME}

    async def get(path: str) -> httpx.Response:
        return await http.get(path, headers=headers, extensions=extensions)

    assert ((await get("/healthz")).text, (await get("/readyz")).text) == ("ok", "ok")
    assert "espalier_coordinator_ready_tasks" in (await get("/metrics")).text
    assert (await get("/v1/jobs/over-http")).json()["counts"]["pending"] == 2
    assert [t["key"] for t in (await get("/v1/jobs/over-http/tasks")).json()["tasks"]] == ["0", "1"]
    assert (await get("/v1/jobs/nobody")).status_code == 404
    assert (await http.get("/v1/jobs", extensions=extensions)).status_code == 401


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(("variables", "code", "words"), [
    ({"ESPALIER_COORDINATOR_DATA": "d", "ESPALIER_COORDINATOR_TLS_DIR": "t"}, 0, ""),
    ({"ESPALIER_COORDINATOR_DATA": "d"}, 78, "ESPALIER_COORDINATOR_TLS_DIR"),
    ({"ESPALIER_COORDINATOR_TLS_DIR": "t"}, 78, "ESPALIER_COORDINATOR_DATA"),
    ({"ESPALIER_COORDINATOR_DATA": "d", "ESPALIER_COORDINATOR_TLS_DIR": "t", "ESPALIER_COORDINATOR_COLOUR": "red"},
     78, "ESPALIER_COORDINATOR_COLOUR"),
], ids=["right", "no TLS", "missing", "unknown"])
def test_settings_are_checked(variables: dict[str, str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "espalier_coordinator", "--check-settings"], env={**os.environ, **variables},
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr
