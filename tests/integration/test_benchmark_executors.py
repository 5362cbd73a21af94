"""The executors with each other, over real sockets: from admission to report and comparison."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espalier_api.benchmarkload import Limits, Load, Slo
from espalier_api.benchmarktasks import AccuracySettings, DatasetSettings, PackSettings
from espalier_benchmark.executors import freeform
from espalier_benchmark.local import LocalRun
from espalier_benchmark.packs import bfcl
from espalier_kit.execution import EvaluatorFault, ModelEndpoint
from tests.support.benchmarks import QUIET, Bench, endpoint, price, said, settings, target, texts
from tests.support.timed_server import TimedServer, completion, spread

FAST = spread(3, scale=0.3)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def knows_half(prompt: object) -> str:
    """The right call for every second item of the pack."""
    if not isinstance(prompt, str):
        return "I see an image"
    for number, (row, gold) in enumerate(bfcl.rows("simple").values()):
        if prompt.endswith(row["question"][0][0]["content"]):
            ((name, options),) = gold[0].items()
            chosen = {key: values[0] for key, values in options.items() if values[0] != ""}
            return f"[{name}({', '.join(f'{k}={v!r}' for k, v in chosen.items())})]" if number % 2 == 0 else "no"
    return "hello"


async def test_a_job_from_admission_to_report(bench: Bench) -> None:
    """Two generators on one schedule, a pack behind them, and every file of the report."""
    server = TimedServer(FAST, whole=said(knows_half, completion))
    wanted = settings(
        targets=(target(price=price()),), load=QUIET, generators=2, slo=Slo(e2e_ms=5000),
        accuracy=AccuracySettings(packs=(PackSettings(name="bfcl:simple", items=20),)),
    )  # fmt: skip
    async with server.serving() as url:
        value = await bench.run(wanted, endpoint(url))
    (figures,) = value.targets
    assert (figures.requests, figures.succeeded, len(server.diary), figures.model) == (40, 40, 40, "timed")
    assert figures.goodput_per_second == figures.requests_per_second
    (accuracy,) = value.accuracy
    assert (accuracy.name, accuracy.items, accuracy.value) == ("bfcl:simple", 20, 0.5)
    assert 0 < accuracy.low < 0.5 < accuracy.high < 1  # type: ignore[operator]
    assert value.cost == pytest.approx(40 * (5 + 2 * 8) / 1e6 + 20 * (5 + 2 * 3) / 1e6)
    raw = await bench.file(value, "records-0.jsonl") + await bench.file(value, "records-1.jsonl")
    records = [json.loads(line) for line in raw.splitlines()]
    assert {(r["index"], r["generator"]) for r in records} == {(i, i % 2) for i in range(40)}
    assert len(json.loads(await bench.file(value, "health-1.json"))["sightings"]) == 6
    assert not any(reason.reason == "ClockOffset" for reason in value.validity.reasons)
    assert len(list(csv.reader(io.StringIO((await bench.file(value, "requests.csv")).decode())))) == 41
    assert (await bench.file(value, "e2e.png")).startswith(b"\x89PNG")
    page = (await bench.file(value, "report.html")).decode()
    assert "bfcl:simple" in page
    assert "<script" not in page
    shape = json.loads(await bench.file(value, "benchmark-report-v0.2.json"))
    aggregate = shape["results"]["request_performance"]["aggregate"]
    assert (shape["version"], aggregate["requests"]["total"], aggregate["requests"]["failures"]) == ("0.2", 40, 0)
    assert aggregate["latency"]["time_to_first_token"]["units"] == "s"


async def test_a_generator_tells_how_far_it_is(bench: Bench) -> None:
    told: list[tuple[str, float, str]] = []
    server = TimedServer(FAST)
    async with server.serving() as url:
        run = LocalRun(bench.store, (endpoint(url),), "u", told=lambda *each: told.append(each))
        await run.run(settings(load=Load(pattern="constant", rate=15, requests=30)))
    fractions = [fraction for key, fraction, _ in told if key == "generate/0"]
    assert fractions == sorted(fractions)
    assert 0.2 < fractions[-1] <= 1
    assert all("answered" in said for key, _, said in told if key == "generate/0")


BLOCKS = Load(pattern="concurrency", concurrency=2, requests=4, blocks=8)


async def test_a_slower_target_of_an_interleaved_run_is_found_regressed(bench: Bench) -> None:
    slow, fast = TimedServer(spread(3, scale=0.9)), TimedServer(FAST)
    async with fast.serving() as one, slow.serving() as other:
        value = await bench.run(
            settings(targets=(target(0), target(1)), load=BLOCKS), endpoint(one), endpoint(other, 1)
        )
    assert {figures.requests for figures in value.targets} == {32}
    assert value.min_detectable_effect is not None
    verdict = await bench.compare(value, value, "ttft", "e2e", targets=("target-0", "target-1"))
    assert (verdict.verdict, verdict.interleaved) == ("Regressed", True)
    assert verdict.delta is not None
    assert verdict.delta > 1
    back = await bench.compare(value, value, "ttft", "e2e", targets=("target-1", "target-0"))
    assert back.verdict == "Improved"
    assert b"Improved" in await bench.file(back, "comparison.html")


async def test_two_jobs_one_after_the_other_are_compared_and_it_says_so(bench: Bench) -> None:
    slow, fast = TimedServer(spread(3, scale=0.9)), TimedServer(FAST, whole=said(knows_half, completion))
    packs = AccuracySettings(packs=(PackSettings(name="bfcl:simple", items=30),))
    async with fast.serving() as one, slow.serving() as other:
        wanted = settings(load=QUIET, accuracy=packs)
        before, after = await bench.run(wanted, endpoint(one)), await bench.run(wanted, endpoint(other))
        elsewhere = await bench.run(settings(load=QUIET.model_copy(update={"requests": 30})), endpoint(one))
    verdict = await bench.compare(before, after, "e2e", "accuracy")
    assert (verdict.verdict, verdict.interleaved) == ("Regressed", False)
    assert "drift may pass for a difference" in verdict.message
    by_metric = {each.metric: each for each in verdict.differences}
    assert by_metric["e2e"].verdict == "Regressed"
    assert (by_metric["accuracy:bfcl:simple"].delta, by_metric["accuracy:bfcl:simple"].samples) == (-0.5, 30)
    for other_value, metric, says in (
        (elsewhere, "e2e", "did not ask the same"), (elsewhere, "accuracy", "no pack in common"),
        (before, "speed", "no metric speed"),
    ):  # fmt: skip
        with pytest.raises(EvaluatorFault, match=says):
            await bench.compare(before, other_value, metric)


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"load": QUIET, "slo": Slo(ttft_ms=100, e2e_ms=50)}, "ImpossibleObjective", "more time than the whole answer"),
        ({"load": Load(pattern="constant", requests=1)}, "BadLoad", "needs load.rate"),
        ({"load": Load(pattern="trace")}, "BadLoad", "needs load.trace"),
        ({"accuracy": {"packs": [{"name": "nope"}]}}, "UnknownPack", "no pack 'nope'"),
        (
            {"accuracy": {"packs": [{"name": "reasoning-gym:ab"}]}, "placement": "mlx"}, "UnknownPack",
            "never runs on Macs",
        ),
        ({"accuracy": {"packs": [{"name": "gsm8k"}]}}, "BadDataset", "give its questions as a file"),
        ({"accuracy": {"packs": [{"name": "gsm8k", "file": "0" * 64}]}}, "SourceNotFound", "run `espalier push`"),
        ({"load": QUIET, "dataset": DatasetSettings(file="FILE")}, "BadDataset", "line 1 of the dataset"),
        ({"accuracy": {"evaluators": ["faithfulness"], "texts": "FILE"}}, "BadDataset", "prompt and context"),
        ({"accuracy": {"evaluators": ["perplexity"], "texts": "TEXTS"}}, "NoLogProbabilities", "leave perplexity out"),
    ],
)
async def test_what_cannot_be_measured_is_refused_at_admission(
    bench: Bench, fields: dict[str, Any], reason: str, says: str
) -> None:
    known = {"FILE": await bench.store.put(b'{"a": 1}\n')}
    known["TEXTS"] = await bench.store.put(texts({"text": "Some text."}))
    text = json.dumps({name: value.wire() if hasattr(value, "wire") else value for name, value in fields.items()})
    for name, digest in known.items():
        text = text.replace(f'"{name}"', f'"{digest}"')
    server = TimedServer(FAST)
    async with server.serving() as url:
        with pytest.raises(EvaluatorFault) as refused:
            await bench.run(settings(**json.loads(text)), endpoint(url))
    assert (refused.value.reason, says in str(refused.value)) == (reason, True), str(refused.value)
    assert server.diary == []


async def test_a_target_that_does_not_answer_is_refused(bench: Bench) -> None:
    server = TimedServer(FAST, whole=lambda path, body: (401, {"error": {"message": "Incorrect API key"}}))
    async with server.serving() as url:
        with pytest.raises(EvaluatorFault, match="refused /v1/chat/completions with HTTP 401: Incorrect API key"):
            await bench.run(settings(load=QUIET), endpoint(url))


async def test_a_limit_stops_the_load_and_the_report_says_so(bench: Bench) -> None:
    server = TimedServer(FAST)
    async with server.serving() as url:
        value = await bench.run(settings(load=QUIET, limits=Limits(max_output_tokens=80)), endpoint(url))
    assert 10 <= value.targets[0].requests < 40
    assert value.stopped.startswith("generator 0: limits.maxOutputTokens: ")
    assert "Stopped at a limit" in (await bench.file(value, "report.html")).decode()


async def test_the_load_s_cost_is_taken_from_what_questions_may_cost(bench: Bench) -> None:
    server = TimedServer(FAST)
    wanted = settings(
        load=QUIET, limits=Limits(max_output_tokens=340),
        accuracy=AccuracySettings(packs=(PackSettings(name="bfcl:simple", items=20),), concurrency=1),
    )  # fmt: skip
    async with server.serving() as url:
        value = await bench.run(wanted, endpoint(url))
    assert value.targets[0].output_tokens == 320
    assert value.accuracy[0].items == 8  # 16 tokens of the first chunk's share and 4 of the second's, 3 an answer
    assert "12 questions" in value.stopped or "questions not asked" in value.stopped


JUDGE = (
    {
        "prompt": "Why is the sky blue?",
        "context": "The sky is blue since air scatters light.",
        "reference": "Scattered light.",
    },
    {"prompt": "What is red?", "text": "Blood is red and so is rust.", "reference": "Blood is red."},
)


def judged(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answers prompts, prefers position 1 always, and gives each token of a text the probability 1/4."""
    if path.endswith("/v1/completions"):
        count = len(body["prompt"].split())
        logprobs = {"token_logprobs": [None, *[math.log(0.25)] * (count - 1)]}
        return 200, {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": count}}
    prompt = body["messages"][-1]["content"]
    if "answer_1" in prompt:
        return 200, completion("[[1]]")
    return 200, completion("The sky is blue. The sky scatters light. Paris.")


async def test_evaluators_measure_what_they_say_they_measure(bench: Bench) -> None:
    stored = await bench.store.put(texts(*JUDGE))
    judge = target(0).model_copy(update={"role": "judge", "name": "judge"})
    accuracy = AccuracySettings(
        evaluators=("perplexity", "coherence", "relevance", "faithfulness", "judge"), texts=stored, judge=judge
    )
    server = TimedServer(FAST, whole=judged)
    async with server.serving() as url:
        value = await bench.run(settings(accuracy=accuracy), endpoint(url), _as_judge(url))
    found = {each.name: each for each in value.accuracy}
    assert found["perplexity"].value == pytest.approx(4)
    assert found["coherence"].value == pytest.approx(0.5)
    assert found["readability"].metric == "score"
    # "the sky is blue" (4) and "scatters" (1) stand in the context; of 9 words.
    assert found["faithfulness"].value == pytest.approx((4 + 2 + 1 + 1) / 9)
    assert 0 < (found["relevance"].value or 0) < 1
    assert (found["judge"].value, found["judge"].kappa, found["judge"].items) == (0.5, 0.0, 2)
    assert value.validity.verdict == "Valid"


def _as_judge(url: str) -> ModelEndpoint:
    return replace(endpoint(url), role="judge")


async def test_workflow_tasks(bench: Bench) -> None:
    server = TimedServer(FAST, whole=said(knows_half, completion))
    image = await bench.store.put(b"\x89PNG\r\n\x1a\n" + bytes(8))
    async with server.serving() as url:
        own = endpoint(url)
        timed = await bench.call(freeform.benchmark, {"provider": "target-0", "prompt": "hi", "iterations": 12}, own)
        direct = await bench.call(freeform.benchmark, {"provider": "openai", "baseUrl": url, "model": "timed"})
        share = await bench.call(freeform.evaluation, {"pack": "bfcl:simple", "items": 4}, own)
        seen = await bench.call(freeform.multimodal, {"prompt": "What is it?", "images": [image]}, own)
        with pytest.raises(EvaluatorFault, match="has no endpoint 'anthropic'"):
            await bench.call(freeform.benchmark, {"provider": "anthropic"}, own)
        with pytest.raises(EvaluatorFault, match=r"payload.iterations: Input should be greater"):
            await bench.call(freeform.benchmark, {"iterations": 0}, own)
    assert (timed.value["requests"], direct.value["succeeded"]) == (12, 1)
    assert timed.value["ttftMs"]["p50"] > 0
    assert share.value["share"] == 0.5
    assert seen.value["text"] == "I see an image"
    assert server.whole_asked[-1]["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    inputs = {"a": dict(timed.value), "b": {"meanE2eMs": 1.0}, "c": {"other": 1}}
    found = (await bench.call(freeform.analysis, {"field": "meanE2eMs"}, inputs=inputs)).value
    assert (found["count"], found["min"], set(found["values"])) == (2, 1.0, {"a", "b"})
    with pytest.raises(EvaluatorFault, match="no dependency of this task has a number 'nope'"):
        await bench.call(freeform.analysis, {"field": "nope"}, inputs=inputs)
