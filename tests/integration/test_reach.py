"""A judge's endpoint outside the platform, tried before any submission: each way it can be wrong, in words."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Response

from bench.model_server import ScriptedServer, serving
from espalier_grading.reach import troubles
from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import SystemClock
from espalier_kit.execution import ModelEndpoint, PlatformFault, Task
from tests.support.grading import LentContext, MemoryArtifacts, endpoint, executor


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Odd:
    """A server that answers each path with a given status; `models` is its list, None: it has none."""

    chat: int
    models: list[str] | None = None
    listing: int = 200

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = FastAPI(openapi_url=None)

        @app.get("/v1/models")
        def models() -> Response:
            body = "" if self.models is None else json.dumps({"data": [{"id": model} for model in self.models]})
            return Response(body, status_code=self.listing)

        @app.post("/v1/chat/completions")
        def chat() -> Response:
            return Response("{}", status_code=self.chat)

        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        listener = socket.create_server(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running


async def trouble(found: ModelEndpoint) -> str:
    told = await troubles([found], ["code"])
    return told[0] if told else ""


@pytest.mark.parametrize(("server", "said"), [
    (Odd(chat=500, models=["code-model", "b"]), ""),
    (Odd(chat=500, models=["code-model:latest"]), ""),
    (Odd(chat=200, models=["alias"]), ""),
    (Odd(chat=429, models=["alias"]), ""),
    (Odd(chat=200, listing=404), ""),
    (Odd(chat=404, models=["a", "b"]), "does not serve code-model, it serves a, b: load it there, or apply a new "
     "GradingJob with another models.code.endpoint.model"),
    (Odd(chat=404, listing=404), "answers HTTP 404 to /v1/chat/completions: apply a new GradingJob whose "
     "models.code.endpoint names the url of an OpenAI-compatible server and a model that it serves"),
    (Odd(chat=503, models=[]), "answers HTTP 503 for model code-model: see its log"),
    (Odd(chat=200, listing=502), "answers HTTP 502: see its log"),
    (Odd(chat=401, listing=404), "refuses us (HTTP 401): it wants a key: apply a new GradingJob with "
     "models.code.endpoint.apiKeySecretRef"),
], ids=lambda value: f"{value.listing}-{value.chat}-{value.models}" if isinstance(value, Odd) else "")
async def test_what_is_wrong_and_what_to_change(server: Odd, said: str) -> None:
    async with server.serve() as url:
        assert await trouble(endpoint("code", url)) == (said and f"the code judge's endpoint {url} {said}")


async def test_a_refused_key_names_its_secret() -> None:
    async with serving(ScriptedServer("m", api_key="right")) as url:
        assert await trouble(endpoint("code", url, api_key="right")) == ""
        told = await trouble(endpoint("code", url, api_key="wrong"))
    assert told.endswith("refuses us (HTTP 401): correct the Secret of models.code.endpoint.apiKeySecretRef")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://no.such.host.invalid", "http://[bad"])
async def test_an_address_where_nobody_answers(url: str) -> None:
    told = await trouble(endpoint("code", url.format(port=free_port())))
    assert "does not answer (" in told
    assert told.endswith("start it, or apply a new GradingJob with another models.code.endpoint.url")


async def test_a_certificate_of_an_authority_that_nobody_named(tmp_path: Path) -> None:
    now = SystemClock().now()
    authority = make_authority("lab", now)
    pair = issue(authority, "llm", now, hosts=["127.0.0.1"], is_server=True)
    files = (tmp_path / "tls.crt", tmp_path / "tls.key")
    files[0].write_bytes(pair.certificate)
    files[1].write_bytes(pair.key)
    async with serving(ScriptedServer("m"), certificate=(str(files[0]), str(files[1]))) as url:
        told = await trouble(endpoint("code", url, ca_pem=make_authority("other", now).certificate.decode()))
        assert told.endswith("name its authority in models.code.endpoint.caSecretRef")
        assert await trouble(endpoint("code", url, ca_pem=authority.certificate.decode())) == ""


@dataclass
class Telling(LentContext):
    """Keeps what was told."""

    told: list[str] = field(default_factory=list)
    has_told: asyncio.Event = field(default_factory=asyncio.Event)

    async def progress(self, fraction: float, message: str = "") -> None:
        self.told.append(message)
        self.has_told.set()


def _task(payload: Mapping[str, object], *, seconds: float) -> Task:
    return Task(
        id="t", job_uid="u", job_name="ps1", namespace="class", key="reach", type="grading.reach", payload=payload,
        inputs={}, attempt=1, deadline=datetime.now(UTC) + timedelta(seconds=seconds),
    )


async def test_the_task_goes_on_by_itself_when_the_server_comes() -> None:
    port = free_port()
    context = Telling(MemoryArtifacts(), (endpoint("code", f"http://127.0.0.1:{port}"), endpoint("feedback", "x")))
    waiting = asyncio.create_task(executor("grading.reach")(_task({"judges": ["code"]}, seconds=600), context))
    await context.has_told.wait()
    assert "does not answer" in context.told[0]
    async with serving(ScriptedServer("code-model"), port=port):
        result = await waiting
    assert result.tallies == {"reached": 1.0}


async def test_an_attempt_ends_in_time_and_says_why() -> None:
    context = Telling(MemoryArtifacts(), (endpoint("code", f"http://127.0.0.1:{free_port()}"),))
    with pytest.raises(PlatformFault, match="does not answer") as fault:
        await executor("grading.reach")(_task({"judges": ["code", "feedback"]}, seconds=10), context)
    assert fault.value.reason == "EndpointUnavailable"
    assert "the feedback judge has no endpoint yet" in str(fault.value)
