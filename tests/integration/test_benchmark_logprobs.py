"""A text's own log-probabilities, from the real model server, against mlx-lm's forward pass in one go."""

from __future__ import annotations

import math
from collections.abc import Iterator

import httpx
import mlx.core as mx
import numpy as np
import pytest

from espalier_benchmark.asking import Asker, Refused
from espalier_benchmark.client import Style
from espalier_kit.clock import SystemClock
from espalier_kit.execution import ModelEndpoint
from espalier_mlx.loading import load_model
from tests.support.model_server import NAME, Server, serving
from tests.support.timed_server import TimedServer, spread

SOURCE = "random://tiny?seed=4"
TEXT = "The student wrote a function <|im_end|> that returns the sum of the squares; größer is 大. " * 12


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(SOURCE, within_s=60, PREFILL_STEP=64) as started:
        yield started


def endpoint(url: str, model: str = NAME) -> ModelEndpoint:
    return ModelEndpoint("target-0", url, model)


async def test_every_token_s_log_probability_is_the_model_s(server: Server) -> None:
    """In chunks of 64 with a cache over there, in one pass and in numpy here."""
    model = load_model("reference", SOURCE)
    tokens = model.codec.encode_text(TEXT).tokens
    logits = np.asarray(model.network(mx.array([tokens]))[0].astype(mx.float32), dtype=np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    wanted = [logs[i, token] for i, token in enumerate(tokens[1:])]
    async with Asker([endpoint(server.url)], Style(), clock=SystemClock()) as asker:
        found = await asker.logprobs(TEXT)
    assert len(found) == len(tokens) - 1 > 128
    assert np.allclose(found, wanted, atol=1e-4)
    assert 1 < math.exp(-sum(found) / len(found)) < 2 * 512


def ask(server: Server, **fields: object) -> httpx.Response:
    body = {"model": NAME, "prompt": "Read the answer.", "echo": True, "max_tokens": 0, "logprobs": 1, **fields}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=30)


def test_the_answer_is_openai_s(server: Server) -> None:
    answer = ask(server).json()
    (choice,) = answer["choices"]
    found = choice["logprobs"]
    assert answer["object"] == "text_completion"
    assert choice["text"] == "".join(found["tokens"]) == "Read the answer."
    assert len({len(column) for column in found.values()}) == 1
    assert (found["token_logprobs"][0], found["text_offset"][0]) == (None, 0)
    best = [next(iter(each.values())) for each in found["top_logprobs"][1:]]
    assert all(top >= own for top, own in zip(best, found["token_logprobs"][1:], strict=True))
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"echo": False, "max_tokens": 16}, 400, "generates text at /v1/chat/completions"),
        ({"max_tokens": 5}, 400, "max_tokens 0"),
        ({"logprobs": 5}, 400, "'logprobs'"),
        ({"prompt": ["a", "b"]}, 400, "'prompt"),
        ({"prompt": "x"}, 400, "give at least 2"),
        ({"model": "other"}, 404, "does not exist here"),
        ({"suffix": "x"}, 400, "'suffix' is not supported"),
    ],
)
def test_what_is_not_an_echo_is_refused(server: Server, fields: dict[str, object], status: int, says: str) -> None:
    response = ask(server, **fields)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


async def test_a_server_without_log_probabilities_is_told_so_in_a_sentence() -> None:
    server = TimedServer(spread(1))
    async with server.serving() as url, Asker([endpoint(url, "timed")], Style(), clock=SystemClock()) as asker:
        with pytest.raises(Refused, match="gives no log-probabilities of a prompt") as refused:
            await asker.logprobs("Read the answer.")
    assert refused.value.reason == "NoLogProbabilities"
