"""The model server's API as its clients see it: a real process, the official `openai` client.

`random://tiny` shows the contract in seconds, whatever the weights.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import httpx
import jsonschema
import openai
import pytest

from tests.support.model_server import ASK, NAME, SYSTEM, VERDICT, Server, json_schema, occupy, serving, until


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
