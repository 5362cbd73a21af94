"""HTTP answers: codes, sentences, health."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from espalier_coordinator.artifacts import ArtifactFiles
from espalier_coordinator.calls.book import calls_of
from espalier_coordinator.engine import Engine
from espalier_coordinator.health import Facts, Health, problems
from espalier_coordinator.host import Host
from espalier_coordinator.metrics import Metrics
from espalier_coordinator.model import Job, NewTask
from espalier_coordinator.openapi import document
from espalier_coordinator.serving import serving
from espalier_coordinator.store.memory import MemoryStore
from espalier_coordinator.web import app
from espalier_kit.clock import SystemClock
from espalier_kit.digest import sha256
from tests.support.callers import named_access


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[FastAPI]:
    clock = SystemClock()
    engine = Engine(clock, random.Random(1), epoch="1-x")
    host = Host(engine, MemoryStore(), clock)
    host.writer.start()
    files = ArtifactFiles(tmp_path / "artifacts", limit_bytes=1000)
    files.open()
    await host.settle(engine.submit(Job("u", "ns", "n"), [NewTask("a", "t"), NewTask("b", "t")]))
    health = Health(host, clock)
    yield app(host, named_access(tmp_path), files, calls=calls_of(host, health, clock), health=health,
              metrics=Metrics(host, files))
    host.writer.stop(5)


@pytest.fixture
async def http(web: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="https://c") as client:
        yield client


@pytest.fixture
async def served(web: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Over a real connection: the other transport tells nothing of a stream before its end."""
    async with (
        serving(web, host="127.0.0.1", port=0, tls=None) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client,
    ):
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(("method", "path", "token", "body", "code", "words"), [
    ("PUT", "/artifacts/ns", "mine", b"x", 201, sha256(b"x")),
    ("PUT", f"/artifacts/ns/{sha256(b'x')}", "root", b"x", 201, '"size":1'),
    ("PUT", f"/artifacts/ns/{sha256(b'y')}", "mine", b"x", 422, "DigestMismatch"),
    ("PUT", "/artifacts/ns/nonsense", "mine", b"x", 422, "64 lower-case hex digits"),
    ("PUT", "/artifacts/NS!", "root", b"x", 422, "is no namespace"),
    ("PUT", "/artifacts/ns", "mine", b"x" * 1001, 413, "at most 1000 bytes"),
    ("PUT", "/artifacts/ns", "theirs", b"x", 403, "may only act in namespace 'other'"),
    ("PUT", "/artifacts/ns", "", b"x", 401, "Bearer TOKEN"),
    ("PUT", "/artifacts/ns", "guess", b"x", 401, "Unauthenticated"),
    ("GET", f"/artifacts/ns/{sha256(b'x')}", "mine", None, 404, "push it again"),
    ("HEAD", f"/artifacts/ns/{sha256(b'x')}", "mine", None, 404, ""),
    ("GET", "/v1/jobs", "mine", None, 200, '"uid": "u"'),
    ("GET", "/v1/jobs?namespace=ns", "theirs", None, 403, "may only"),
    ("GET", "/v1/jobs/u", "theirs", None, 403, "may only"),
    ("GET", "/v1/jobs/u/tasks?state=ready", "mine", None, 200, '"key": "b"'),
    ("GET", "/v1/jobs/v", "root", None, 404, "never submitted"),
    ("POST", "/v1/jobs", "root", b"[" * 100_000, 422, "nested too deeply"),
    ("POST", "/v1/jobs", "root", b'{"name": "\\ud800"}', 422, "half a surrogate pair"),
    ("GET", "/v1/dead-letters?after=1e9", "root", None, 422, "`next` of the page before"),
    ("GET", "/v1/dead-letters?after=%C2%B2", "root", None, 422, "`next` of the page before"),
    ("GET", "/v1/dead-letters?after=99999999999999999999", "root", None, 422, "`next` of the page before"),
    ("GET", "/healthz", "", None, 200, "ok"),
    ("GET", "/readyz", "", None, 200, "ok"),
    ("GET", "/metrics", "", None, 200, 'espalier_coordinator_ready_tasks{type="t"} 2.0'),
    ("GET", "/metrics", "", None, 200, 'espalier_coordinator_oldest_ready_seconds{tags=""}'),
    ("GET", "/metrics", "", None, 200, "espalier_coordinator_commit_seconds_bucket"),
])
async def test_answers(
    http: httpx.AsyncClient, method: str, path: str, token: str, body: bytes | None, code: int, words: str
) -> None:
    answer = await http.request(method, path, content=body, headers=bearer(token) if token else {})
    assert answer.status_code == code, answer.text
    assert words in answer.text


async def test_a_watch_begins_before_there_is_anything_to_see(served: httpx.AsyncClient) -> None:
    """A client's patience for an answer is not the patience for the next job; and whoever goes is noticed."""
    path = "/v1/jobs:watch"
    async with served.stream("GET", path, headers=bearer("theirs")) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        made = await served.post("/v1/jobs", json={"uid": "v", "namespace": "other"}, headers=bearer("root"))
        assert made.status_code == 200, made.text
        assert json.loads(await anext(answer.aiter_lines()))["uid"] == "v"
    refused = await served.get(path, headers=bearer("guess"))
    assert refused.status_code == 401


async def test_an_artifact_comes_back_with_its_length(http: httpx.AsyncClient) -> None:
    await http.put("/artifacts/ns", content=b"hello", headers=bearer("mine"))
    for method, body in (("GET", b"hello"), ("HEAD", b"")):
        answer = await http.request(method, f"/artifacts/ns/{sha256(b'hello')}", headers=bearer("mine"))
        assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "5", body)


async def test_somebody_elses_jobs_are_not_listed(http: httpx.AsyncClient) -> None:
    assert json.loads((await http.get("/v1/jobs", headers=bearer("theirs"))).text)["jobs"] == []


@pytest.mark.parametrize(("facts", "words"), [
    (Facts(is_writer_alive=True, commit_age_s=0.1, loop_lag_s=0.1), None),
    (Facts(is_writer_alive=False, commit_age_s=0, loop_lag_s=0), "writer thread"),
    (Facts(is_writer_alive=True, commit_age_s=61, loop_lag_s=0), "waited 61 s for the disk"),
    (Facts(is_writer_alive=True, commit_age_s=0, loop_lag_s=6), "event loop is 6.0 s late"),
])
def test_health_is_progress(facts: Facts, words: str | None) -> None:
    found = problems(facts)
    assert (not found) if words is None else words in found[0]


def test_every_reference_in_the_document_leads_somewhere() -> None:
    told = document()
    referenced = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(told)))
    assert referenced <= set(told["components"]["schemas"])
    assert {"SubmitJobRequest", "JobView", "TaskSpec", "Problem"} <= referenced
    for path, operations in told["paths"].items():
        for operation in operations.values():
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"]
