"""Every call by gRPC and by HTTP: the same answers, the same sentences, the same refusals."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest

from bench.coordinator_process import CoordinatorProcess, stub
from espalier_coordinator.callers import add_key
from espalier_coordinator.local import NAME, prepare
from espalier_coordinator.routes import ROUTES, Route
from espalier_kit.clock import SystemClock
from espalier_kit.errors import EspalierError, Forbidden, NotFound, Permanent
from espalier_rpc.artifacts import web_client
from espalier_rpc.client import CoordinatorClient
from espalier_rpc.jsonform import to_json
from espalier_rpc.v1 import coordinator_pb2 as pb

DEADLINE_S = 60.0
ROUTE_OF = {route.rpc: route for route in ROUTES}
ID = re.compile(r"^[0-9a-f]{32}$")
VOLATILE = frozenset({
    "submitted_at", "finished_at", "last_heartbeat_age_s", "until", "next", "load", "message", "receipt",
})


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorProcess]:
    running = CoordinatorProcess(tmp_path_factory.mktemp("calls"), HEARTBEAT_S="2")
    prepare(running.folder, SystemClock())
    thief = add_key(running.folder / "callers.yaml", name="thief", role="worker", namespaces=["other"])
    (running.folder / "thief.token").write_text(thief)
    running.start()
    yield running
    running.close()


class Refused(Exception):
    """An answer that is a refusal: its reason and its sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.told = {"reason": reason, "detail": detail}


class OverGrpc:
    """Asks by gRPC."""

    def __init__(self, client: CoordinatorClient) -> None:
        self._client = client

    async def ask(self, rpc: str, **fields: Any) -> Any:
        try:
            if ROUTE_OF[rpc].is_stream:
                return [to_json(m) async for m in self._stream(rpc, fields)]
            return await self._client.call(rpc, **fields)
        except EspalierError as error:
            raise Refused(error.reason, str(error)) from error

    async def _stream(self, rpc: str, fields: Mapping[str, Any]) -> AsyncIterator[Any]:
        if rpc == "WatchJob":
            async for told in self._client.follow(fields["job_id"]):
                yield pb.JobView(uid=told["uid"], state=told["state"])
            return
        async for view in self._client.watch():
            if view.uid == fields["until"]:
                yield pb.JobView(uid=view.uid, state=view.state)
                return


class OverHttp:
    """Asks by HTTP."""

    def __init__(self, http: httpx.AsyncClient, token: str) -> None:
        self._http = http
        self._token = token

    async def ask(self, rpc: str, **fields: Any) -> Any:
        route = ROUTE_OF[rpc]
        if route.is_stream:
            return [told async for told in self._stream(route, fields)]
        answer = await self._http.send(self._request(route, fields))
        told = answer.json()
        if answer.is_error:
            assert answer.headers["content-type"] == "application/problem+json"
            assert told["status"] == answer.status_code
            raise Refused(told["reason"], told["detail"])
        return told

    async def _stream(self, route: Route, fields: Mapping[str, Any]) -> AsyncIterator[Any]:
        request = self._request(route, {k: v for k, v in fields.items() if k != "until"})
        answer = await self._http.send(request, stream=True)
        try:
            if answer.is_error:
                told = json.loads(await answer.aread())
                raise Refused(told["reason"], told["detail"])
            async for line in answer.aiter_lines():
                told = json.loads(line)
                if told["uid"] == fields.get("until", told["uid"]):
                    yield to_json(pb.JobView(uid=told["uid"], state=told["state"]))
                if told["uid"] == fields.get("until"):
                    return
        finally:
            await answer.aclose()

    def _request(self, route: Route, fields: Mapping[str, Any]) -> httpx.Request:
        in_path = re.findall(r"\{(\w+)\}", route.path)
        rest = {k: v for k, v in fields.items() if k not in in_path}
        return self._http.build_request(
            route.method, route.path.format(**{name: fields.get(name, "") for name in in_path}),
            json=rest if route.has_body else None, params=None if route.has_body else rest,
            headers={"authorization": f"Bearer {self._token}"} if self._token else {},
            extensions={"sni_hostname": NAME},
        )


@dataclass
class Asking:
    """Both ways in, as any of the callers."""

    process: CoordinatorProcess
    http: httpx.AsyncClient
    channels: dict[str, grpc.aio.Channel]

    def by(self, way: str, who: str = "admin") -> OverGrpc | OverHttp:
        if way == "http":
            return OverHttp(self.http, (self.process.folder / f"{who}.token").read_text())
        if who not in self.channels:
            self.channels[who] = self.process.channel(who)
        return OverGrpc(CoordinatorClient(self.channels[who]))


@pytest.fixture
async def asking(process: CoordinatorProcess) -> AsyncIterator[Asking]:
    ca_pem = (process.folder / "tls" / "ca.crt").read_text()
    async with web_client(f"https://127.0.0.1:{process.http_port}", ca_pem=ca_pem) as http:
        asked = Asking(process, http, {})
        yield asked
        for channel in asked.channels.values():
            await channel.close()


def neutral(told: Any, prefix: str) -> Any:
    """Without what differs by nature: the prefix of names, ids made of them, times."""
    if isinstance(told, dict):
        return {key: None if key in VOLATILE else neutral(value, prefix) for key, value in told.items()}
    if isinstance(told, list):
        return [neutral(item, prefix) for item in told]
    if isinstance(told, str):
        return "id" if ID.fullmatch(told) else told.replace(prefix, "")
    return told


async def life(by: OverGrpc | OverHttp, p: str) -> list[tuple[str, Any]]:
    """Every call there is, in the order of a life, and what was answered to each."""
    told: list[tuple[str, Any]] = []

    async def ask(rpc: str, **fields: Any) -> Any:
        try:
            answer = await by.ask(rpc, **fields)
        except Refused as refused:
            answer = refused.told
        told.append((rpc, neutral(answer, p)))
        return answer

    async def run(*, success: bool, **more: Any) -> None:
        (task,) = (await ask("PullTasks", worker_id=f"{p}w", max_tasks=1, wait_s=10))["tasks"]
        await ask("ReportResult", worker_id=f"{p}w", **task["lease"], success=success, execution_time_ms=12.5, **more)

    tasks = [{"key": "a", "type": f"{p}t", "payload": {"n": [1, None, "ü"]}, "retries": 0},
             {"key": "b", "type": f"{p}t", "depends_on": [{"key": "a"}], "tags": [f"{p}gpu"], "retries": 0}]
    await ask("SubmitJob", uid=f"{p}job", namespace="default", name="n", tasks=tasks, tags=[f"{p}x"], weight=2.0)
    await ask("GetJobStatus", job_id=f"{p}job")
    await ask("UpdateJob", uid=f"{p}job", priority=7, max_running=5)
    await ask("ListJobs", namespace="default", tag_filter=[f"{p}x"], status_filter="pending")
    await ask("RegisterWorker", worker_id=f"{p}w", capacity=2, types=[f"{p}t"], tags=[f"{p}gpu"], namespace="default",
              resources={"gpu": 1}, address="127.0.0.1:1")
    await ask("ListWorkers", tag_filter=[f"{p}gpu"], status_filter="idle")
    await run(success=True, result={"score": 3})
    await ask("Heartbeat", worker_id=f"{p}w", in_flight=[{"task_id": "gone", "attempt": 1}])
    await run(success=False, error="no such model", reason="ModelMissing")
    await ask("GetJobStatus", job_id=f"{p}job")
    await ask("ListDeadLetters", job_uid=f"{p}job")
    await ask("RetryTasks", job_uid=f"{p}job", keys=["b"])
    await run(success=True, result={"score": 4}, tallies={"n": 2})
    await ask("GetJobStatus", job_id=f"{p}job")
    await ask("ListTasks", job_uid=f"{p}job", limit=1)
    await ask("GetJob", uid=f"{p}job")
    await ask("WatchJob", job_id=f"{p}job")
    await ask("WatchJobs", until=f"{p}job")
    await ask("CancelJob", job_id=f"{p}job", reason="too late")
    template = [{"key": "only", "type": "{kind}", "payload": {"model": "{model}", "n": "{n:json}"}}]
    await ask("PutTemplate", namespace="default", name=f"{p}tpl", tasks=template, required=["kind", "model"],
              defaults={"n": "3"})
    await ask("ListTemplates", namespace="default")
    await ask("GetTemplate", namespace="default", name=f"{p}tpl")
    await ask("SubmitJob", uid=f"{p}from", namespace="default", template=f"{p}tpl",
              parameters={"kind": f"{p}other", "model": "m"})
    await ask("SubmitJob", namespace="default", template=f"{p}tpl", parameters={"kind": "k"})
    await ask("DeleteTemplate", namespace="default", name=f"{p}tpl")
    await ask("Reserve", namespace="default", name=f"{p}r", slots=1, job_uid=f"{p}from", until=4e9)
    await ask("ListReservations", namespace="default")
    await ask("ReleaseReservation", namespace="default", name=f"{p}r")
    await ask("CancelJob", job_id=f"{p}from", reason="enough")
    await ask("DrainWorker", worker_id=f"{p}w", reason="upgrade")
    await ask("Heartbeat", worker_id=f"{p}w")
    await ask("DeregisterWorker", worker_id=f"{p}w")
    await ask("HealthCheck")
    told.append(("GetClusterStats", sorted(await by.ask("GetClusterStats"))))
    for uid in ("job", "from"):
        await ask("DeleteJob", uid=f"{p}{uid}")
    await ask("ListJobs", tag_filter=[f"{p}x"])
    return told


async def test_each_call_answers_the_same_by_grpc_and_by_http(asking: Asking) -> None:
    async with asyncio.timeout(DEADLINE_S):
        by_grpc = await life(asking.by("grpc"), "g-")
        by_http = await life(asking.by("http"), "h-")
    for (rpc, over_grpc), (_, over_http) in zip(by_grpc, by_http, strict=True):
        assert over_grpc == over_http, rpc
    assert {rpc for rpc, _ in by_grpc} == set(ROUTE_OF), "every route is walked"
    answers = [answer for rpc, answer in by_grpc if rpc == "GetJobStatus"]
    assert [a["status"] for a in answers] == ["pending", "failed", "completed"]
    assert answers[1]["error"] == "b: PlatformFault: ModelMissing: no such model"
    assert answers[2]["result"] == {"b": {"score": 4}}
    assert {"reason": "MissingParameter", "detail": "template 'tpl' needs 'model': pass a value for each"} in [
        answer for rpc, answer in by_grpc if rpc == "SubmitJob"
    ]


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("GetJob", {"uid": "nobody"}, "NotFound", "no job 'nobody'"),
    ("SubmitJob", {"uid": "c", "tasks": [{"key": "a", "type": "t", "depends_on": [{"key": "a"}]}]}, "", "circle"),
    ("SubmitJob", {"template": "none"}, "UnknownTemplate", "no job template 'none'"),
    ("SubmitJob", {"tasks": [{"key": "a", "type": "t", "payload": 3}]}, "InvalidTask", "must be a JSON object"),
    ("SubmitJob", {"tasks": [{"key": "a", "type": "t"}], "template": "x"}, "InvalidJob", "not both"),
    ("SubmitJob", {"parameters": {"a": "b"}}, "InvalidJob", "name it"),
    ("SubmitJob", {"pool": "none"}, "UnknownPool", "no worker pool 'none'"),
    ("SubmitJob", {"tasks": [{"key": "a", "type": "t", "payload": {"x": "y" * 300_000}}]}, "PayloadTooLarge",
     "artifact store"),
    ("ListJobs", {"status_filter": "happy"}, "InvalidFilter", "no job status 'happy'"),
    ("ListWorkers", {"status_filter": "happy"}, "InvalidFilter", "no worker status 'happy'"),
    ("PullTasks", {"worker_id": "nobody", "max_tasks": 1}, "UnknownWorker", "register it"),
    ("PullTasks", {"worker_id": "nobody"}, "InvalidPull", "at least 1"),
    ("PullTasks", {"worker_id": "nobody", "max_tasks": 1, "wait_s": 31}, "InvalidPull", "between 0 and 30"),
    ("RegisterWorker", {"worker_id": "w", "types": ["t"]}, "InvalidHello", "capacity"),
    ("ReportResult", {"worker_id": "nobody", "task_id": "x", "attempt": 1}, "UnknownWorker", "nobody"),
    ("Reserve", {"namespace": "default", "name": "r", "slots": 0, "job_uid": ""}, "InvalidReservation", "at least 1"),
    ("RetryTasks", {"job_uid": "nobody"}, "NotFound", "nobody"),
    ("ListDeadLetters", {"after": "x"}, "InvalidPage", "next"),
]


@pytest.mark.parametrize("way", ["grpc", "http"])
@pytest.mark.parametrize(("rpc", "fields", "reason", "words"), WRONG, ids=[f"{w[0]} {w[2]} {w[3]}" for w in WRONG])
async def test_what_is_wrong_is_a_sentence(
    asking: Asking, way: str, rpc: str, fields: dict[str, Any], reason: str, words: str
) -> None:
    with pytest.raises(Refused, match=re.escape(words)) as caught:
        await asking.by(way).ask(rpc, **fields)
    assert reason in ("", caught.value.told["reason"])


@pytest.mark.parametrize(("who", "rpc", "fields", "words"), [
    ("worker", "SubmitJob", {"name": "mine"}, "may not submit"),
    ("worker", "CancelJob", {"job_id": "theirs"}, "may not submit or steer"),
    ("worker", "PutTemplate", {"namespace": "default", "name": "t"}, "may not submit"),
    ("worker", "DrainWorker", {"worker_id": "honest"}, "may not submit"),
    ("worker", "RegisterWorker", {"capacity": 1, "types": ["t"], "namespace": "other"}, "not in 'other'"),
    ("worker", "RegisterWorker", {"capacity": 1, "types": ["t"], "pool": "p"}, "belongs to no pool"),
    ("submitter", "RegisterWorker", {"capacity": 1, "types": ["t"]}, "may not run tasks"),
    ("submitter", "SubmitJob", {"namespace": "other", "name": "x"}, "not in 'other'"),
    ("submitter", "PullTasks", {"worker_id": "honest", "max_tasks": 1}, "no worker 'honest'"),
    ("thief", "PullTasks", {"worker_id": "honest", "max_tasks": 1}, "no worker 'honest'"),
    ("thief", "Heartbeat", {"worker_id": "honest"}, "no worker 'honest'"),
    ("thief", "DeregisterWorker", {"worker_id": "honest"}, "no worker 'honest'"),
    ("thief", "GetJob", {"uid": "theirs"}, "may only act in namespace 'other'"),
    ("thief", "ListDeadLetters", {"job_uid": "theirs"}, "may only act in namespace 'other'"),
])
@pytest.mark.parametrize("way", ["grpc", "http"])
async def test_what_one_may_not_is_refused(
    asking: Asking, way: str, who: str, rpc: str, fields: dict[str, Any], words: str
) -> None:
    await asking.by("grpc").ask("SubmitJob", uid="theirs", namespace="default", tasks=[{"key": "a", "type": "honest"}])
    await asking.by("grpc", "worker").ask("RegisterWorker", worker_id="honest", capacity=1, types=["unused"])
    with pytest.raises(Refused, match=re.escape(words)):
        await asking.by(way, who).ask(rpc, **fields)


async def test_a_stolen_token_reports_nothing_that_it_did_not_lease(asking: Asking) -> None:
    await asking.by("http").ask("SubmitJob", uid="prey", namespace="default", tasks=[{"key": "a", "type": "prey"}])
    honest, thief, twin = asking.by("grpc", "worker"), asking.by("grpc", "thief"), asking.by("http", "worker")
    await honest.ask("RegisterWorker", worker_id="victim", capacity=1, types=["prey"])
    (task,) = (await honest.ask("PullTasks", worker_id="victim", max_tasks=1, wait_s=10))["tasks"]
    for by, name in ((thief, "victim"), (twin, "other-one")):
        await by.ask("RegisterWorker", worker_id=name, capacity=1, types=["prey"])
        stolen = await by.ask("ReportResult", worker_id=name, **task["lease"], success=True, result={"stolen": 1})
        assert stolen == {"accepted": False, "reason": f"attempt 1 is not leased to {name}"}
    for _ in range(2):  # the answer to the first may have been lost: the same again is the same
        answer = await honest.ask("ReportResult", worker_id="victim", **task["lease"], success=True, result={"own": 1})
        assert answer == {"accepted": True, "reason": ""}
    assert (await asking.by("grpc").ask("GetJobStatus", job_id="prey"))["result"] == {"own": 1}


@pytest.mark.parametrize("token", ["", "guessed"])
async def test_without_a_known_token_no_route_answers(asking: Asking, token: str) -> None:
    for route in ROUTES:
        in_path = re.findall(r"\{(\w+)\}", route.path)
        with pytest.raises(Refused, match="Bearer TOKEN" if not token else "nobody has this API key"):
            await OverHttp(asking.http, token).ask(route.rpc, **dict.fromkeys(in_path, "x"))


async def test_a_pull_waits_for_its_first_task_and_leaves_no_wish_behind(asking: Asking) -> None:
    worker, admin = asking.by("http", "worker"), asking.by("grpc")
    await worker.ask("RegisterWorker", worker_id="patient", capacity=3, types=["late"])
    assert (await worker.ask("PullTasks", worker_id="patient", max_tasks=3, wait_s=0.05))["tasks"] == []
    waiting = asyncio.create_task(worker.ask("PullTasks", worker_id="patient", max_tasks=3, wait_s=20))
    await admin.ask("SubmitJob", uid="late", namespace="default",
                    tasks=[{"key": str(n), "type": "late"} for n in range(5)])
    async with asyncio.timeout(DEADLINE_S):
        first = (await waiting)["tasks"]
        while len(first) < 3:
            first += (await worker.ask("PullTasks", worker_id="patient", max_tasks=3, wait_s=5))["tasks"]
    assert (await worker.ask("PullTasks", worker_id="patient", max_tasks=3, wait_s=0))["tasks"] == [], "at capacity"
    assert (await admin.ask("GetJob", uid="late"))["counts"]["running"] == 3
    returned = await worker.ask("DeregisterWorker", worker_id="patient")
    assert returned == {"returned_tasks": 3}
    assert (await admin.ask("GetJob", uid="late"))["counts"]["pending"] == 5
    with pytest.raises(Refused, match="no worker 'patient'"):
        await worker.ask("Heartbeat", worker_id="patient")


async def test_a_pull_whose_caller_went_away_takes_nothing_along(asking: Asking) -> None:
    worker, admin = asking.by("grpc", "worker"), asking.by("grpc")
    await worker.ask("RegisterWorker", worker_id="fickle", capacity=1, types=["fickle"])
    lost = asyncio.create_task(worker.ask("PullTasks", worker_id="fickle", max_tasks=1, wait_s=20))
    await asyncio.wait([lost], timeout=0.2)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    await admin.ask("SubmitJob", uid="fickle", namespace="default", tasks=[{"key": "a", "type": "fickle"}])
    async with asyncio.timeout(DEADLINE_S):
        told = await worker.ask("PullTasks", worker_id="fickle", max_tasks=1, wait_s=10)
    assert [t["key"] for t in told["tasks"]] == ["a"]


async def test_who_registers_again_keeps_what_it_names_and_frees_the_rest(asking: Asking) -> None:
    worker, admin = asking.by("grpc", "worker"), asking.by("http")
    await admin.ask("SubmitJob", uid="again", namespace="default",
                    tasks=[{"key": str(n), "type": "again"} for n in range(2)])
    await worker.ask("RegisterWorker", worker_id="back", capacity=2, types=["again"])
    kept, lost = (await worker.ask("PullTasks", worker_id="back", max_tasks=2, wait_s=10))["tasks"]
    await worker.ask("RegisterWorker", worker_id="back", capacity=2, types=["again"], in_flight=[kept["lease"]])
    answer = await worker.ask("ReportResult", worker_id="back", **kept["lease"], success=True)
    assert answer["accepted"] is True
    (again,) = (await worker.ask("PullTasks", worker_id="back", max_tasks=2, wait_s=10))["tasks"]
    assert again["key"] == lost["key"]


async def test_cancelling_reaches_a_worker_by_its_heartbeat(asking: Asking) -> None:
    worker, admin = asking.by("http", "worker"), asking.by("http")
    await admin.ask("SubmitJob", uid="stop", namespace="default", tasks=[{"key": "a", "type": "stop"}])
    await worker.ask("RegisterWorker", worker_id="obedient", capacity=1, types=["stop"])
    (task,) = (await worker.ask("PullTasks", worker_id="obedient", max_tasks=1, wait_s=10))["tasks"]
    progress = [{"lease": task["lease"], "fraction": 0.5, "message": "half"}]
    told = await worker.ask("Heartbeat", worker_id="obedient", in_flight=[task["lease"]], progress=progress)
    assert told["cancelled"] == []
    seen = await admin.ask("GetJob", uid="stop")
    assert (seen["fraction"], seen["message"]) == (0.5, "half")
    assert await admin.ask("CancelJob", job_id="stop", reason="enough") == {"success": True, "message": "enough"}
    told = await worker.ask("Heartbeat", worker_id="obedient", in_flight=[task["lease"]])
    assert told["cancelled"] == [task["lease"]]
    await worker.ask("ReportResult", worker_id="obedient", **task["lease"], outcome="cancelled")
    seen = await admin.ask("GetJob", uid="stop")
    assert (seen["state"], seen["message"]) == ("cancelled", "enough")


# ---------------------------------------------------------------- sizes


async def test_large_messages_travel_compressed_and_arrive_whole(asking: Asking) -> None:
    tasks = [{"key": f"task-{n}", "type": "large", "payload": {"text": "same " * 200}} for n in range(400)]
    route, body = ROUTE_OF["SubmitJob"], {"uid": "large", "namespace": "default", "tasks": tasks}
    token = (asking.process.folder / "admin.token").read_text()
    headers = {"authorization": f"Bearer {token}", "content-encoding": "gzip"}
    data = gzip.compress(json.dumps(body).encode())
    answer = await asking.http.post(route.path, content=data, headers=headers, extensions={"sni_hostname": NAME})
    assert answer.json()["counts"]["pending"] == 400
    del headers["content-encoding"]
    listed = await asking.http.get("/v1/jobs/large/tasks", headers=headers, extensions={"sni_hostname": NAME})
    assert listed.headers["content-encoding"] == "gzip"
    over_grpc = await asking.by("grpc").ask("ListTasks", job_uid="large")
    assert over_grpc == listed.json()
    assert len(over_grpc["tasks"]) == 400
    again = await asking.by("grpc").ask("SubmitJob", uid="large-2", namespace="default", tasks=tasks)
    assert again["counts"]["pending"] == 400


async def test_a_message_over_the_limit_is_a_sentence(asking: Asking) -> None:
    name = "x" * (65 * 1024 * 1024)
    for way in ("grpc", "http"):
        with pytest.raises(Refused, match="at most 67108864 bytes") as caught:
            await asking.by(way).ask("SubmitJob", name=name)
        assert caught.value.told["reason"] == "MessageTooLarge"
    bomb = gzip.compress(b" " * (65 * 1024 * 1024))
    token = (asking.process.folder / "admin.token").read_text()
    headers = {"authorization": f"Bearer {token}", "content-encoding": "gzip"}
    answer = await asking.http.post("/v1/jobs", content=bomb, headers=headers, extensions={"sni_hostname": NAME})
    assert (answer.status_code, answer.json()["reason"]) == (413, "MessageTooLarge")


# ---------------------------------------------------------------- the client and the pages


async def test_the_client_raises_errors_by_meaning(process: CoordinatorProcess) -> None:
    async with process.channel("worker") as channel:
        client = CoordinatorClient(channel)
        with pytest.raises(NotFound):
            await client.call("GetJob", uid="nobody")
        with pytest.raises(Forbidden):
            await client.call("SubmitJob", name="x")
        with pytest.raises(Permanent, match="has no field 'colour'"):
            await client.call("SubmitJob", colour="red")
        with pytest.raises(NotFound):
            _ = [told async for told in client.follow("nobody")]


async def test_health_needs_no_token_and_the_pages_nothing_from_elsewhere(asking: Asking) -> None:
    async def get(path: str) -> httpx.Response:
        return await asking.http.get(path, extensions={"sni_hostname": NAME})

    assert set((await get("/health")).json()) == {"status", "message", "healthy", "degraded", "unhealthy"}
    document = (await get("/openapi.json")).json()
    assert {o["operationId"] for path in document["paths"].values() for o in path.values()} == set(ROUTE_OF)
    page = await get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert not re.findall(r'(?:src|href)="(?!#|openapi\.json)', page.text)
    assert all(route.path in page.text for route in ROUTES)


async def test_the_health_service_of_grpc_answers_beside_it(process: CoordinatorProcess) -> None:
    async with process.channel("worker") as channel:
        told = await stub(channel).HealthCheck(pb.HealthCheckRequest())
    assert told.overall_status in ("healthy", "degraded", "unhealthy")
    assert process.is_listening
