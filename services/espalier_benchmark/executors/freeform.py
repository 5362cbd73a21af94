"""Task types of a workflow: `benchmark`, `evaluation`, `multimodal`, `analysis`, with small payloads of their own.

`provider` is the role or the name of one of the job's endpoints (`target-0`); with `baseUrl` any server that speaks
OpenAI's API, and `provider` is then only a name.
"""

from __future__ import annotations

import asyncio
import base64
import statistics
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from espalier_api.benchmarktasks import AnswerSandbox, runs_answers
from espalier_api.meta import Model
from espalier_benchmark.asking import Asker
from espalier_benchmark.client import Style
from espalier_benchmark.evaluators import intervals
from espalier_benchmark.executors.common import CLOCK, faults, source
from espalier_benchmark.fleet import Fleet
from espalier_benchmark.generate import Generator, Options, Stopwatch
from espalier_benchmark.items import Item, in_turn, synthetic
from espalier_benchmark.measure import Summary, summarise
from espalier_benchmark.packs.catalog import open_pack
from espalier_benchmark.packs.model import first
from espalier_benchmark.packs.sandboxed import sandbox_of
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Bounds, Concurrency, schedule
from espalier_kit.execution import Context, EvaluatorFault, ModelEndpoint, Result, Task

M = TypeVar("M", bound=Model)
_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}


class _Ask(Model):
    """Whom, and how."""

    provider: str = Field(default="", max_length=253)
    model: str | None = Field(default=None, max_length=253)
    base_url: str | None = Field(default=None, pattern="^https?://")
    max_tokens: int = Field(default=128, ge=1, le=8192)
    temperature: float = Field(default=0.0, ge=0, le=2)
    seed: int | None = None


class BenchmarkPayload(_Ask):
    """`benchmark`: `iterations` requests, `concurrency` at a time, with the prompt or synthetic ones."""

    prompt: str | None = None
    iterations: int = Field(default=1, ge=1, le=100_000)
    concurrency: int = Field(default=1, ge=1, le=1000)


class EvaluationPayload(_Ask):
    """`evaluation`: a pack's first `items` questions."""

    pack: str
    items: int = Field(default=20, ge=1, le=1000)
    pack_seed: int = 0
    sandbox: AnswerSandbox = Field(default="bubblewrap", description="The operator fills in the job's own.")


class MultimodalPayload(_Ask):
    """`multimodal`: a prompt about images, which are artifacts' digests."""

    prompt: str
    images: tuple[str, ...] = Field(min_length=1, max_length=16)


class AnalysisPayload(Model):
    """`analysis`: one number, named by its path (`e2eMs.p50`), of every dependency that has it."""

    field: str = Field(min_length=1, max_length=253)


async def benchmark(task: Task, context: Context) -> Result:
    """Timed requests to one server."""
    wanted = _read(BenchmarkPayload, task.payload)
    records: list[Record] = []
    watch = Stopwatch(CLOCK)
    style = Style(wanted.temperature, wanted.seed, wanted.max_tokens, takes_ignore_eos=False)
    prompt = Item((("user", wanted.prompt or ""),), wanted.max_tokens)
    items = (
        in_turn([prompt])
        if wanted.prompt
        else synthetic(seed=wanted.seed or 0, prompt_tokens=64, output_tokens=wanted.max_tokens)
    )
    with faults():
        async with Fleet([_endpoint(wanted, context)], watch.now, name="target", style=style) as fleet:
            generator = Generator(fleet, watch, items=items, write=records.append, options=Options())
            await generator.run(schedule(Concurrency(wanted.concurrency), Bounds(requests=wanted.iterations), seed=0))
    summary = summarise(records)
    if not summary.succeeded:
        kinds = ", ".join(f"{kind} ({records[0].detail})" for kind in summary.errors)
        said = f"not one of {summary.requests} requests was answered: {kinds}"
        raise EvaluatorFault(said, reason="TargetUnreachable")
    return Result(value=_figures(summary), tallies={"requests": float(summary.requests)})


async def evaluation(task: Task, context: Context) -> Result:
    """Questions with known answers to one server."""
    wanted = _read(EvaluationPayload, task.payload)
    with faults():
        pack = await asyncio.to_thread(
            open_pack, wanted.pack, items=wanted.items, seed=wanted.pack_seed, sandbox=sandbox_of(wanted.sandbox)
        )
        questions = first(pack.questions(), count=wanted.items)
        async with _asker(wanted, context) as asker:
            answers = []
            for number, question in enumerate(questions):
                answers.append((question.id, (await asker.chat(question.item)).text))
                await context.progress(number / len(questions), f"{number + 1} of {len(questions)} questions")
        grades = await pack.grade(answers)
    right = sum(grade.is_right for grade in grades)
    low, high = intervals.share(right, len(grades))
    value: dict[str, Any] = {"pack": wanted.pack, "items": len(grades), "right": right, "share": right / len(grades)}
    if runs_answers(wanted.pack):
        value["sandbox"] = wanted.sandbox
    return Result(value={**value, "low": low, "high": high}, tallies={"items": float(len(grades))})


async def multimodal(task: Task, context: Context) -> Result:
    """One question about images; the server decides whether it can see."""
    wanted = _read(MultimodalPayload, task.payload)
    images = [_image(await source(context.artifacts, digest, "images")) for digest in wanted.images]
    content = [{"type": "text", "text": wanted.prompt}, *images]
    endpoint = _endpoint(wanted, context)
    body = {
        "model": endpoint.model, "messages": [{"role": "user", "content": content}], "max_tokens": wanted.max_tokens,
        "temperature": wanted.temperature,
    }  # fmt: skip
    with faults():
        started = CLOCK.monotonic()
        async with _asker(wanted, context) as asker:
            said = await asker.send(body)
    return Result(
        value={
            "text": said.text[:8192],
            "model": said.model,
            "promptTokens": said.prompt_tokens,
            "outputTokens": said.output_tokens,
            "seconds": CLOCK.monotonic() - started,
        }
    )


async def analysis(task: Task, context: Context) -> Result:
    """Count, mean and spread of a figure over the tasks that this one depends on."""
    wanted = _read(AnalysisPayload, task.payload)
    values = {key: _number(outcome.value, wanted.field) for key, outcome in task.inputs.items() if outcome.value}
    found = {key: value for key, value in values.items() if value is not None}
    if not found:
        raise EvaluatorFault(
            f"no dependency of this task has a number {wanted.field!r}: name a field of their values, and dependsOn",
            reason="NothingToAnalyse",
        )
    numbers = list(found.values())
    return Result(
        value={
            "field": wanted.field,
            "count": len(numbers),
            "mean": statistics.fmean(numbers),
            "min": min(numbers),
            "max": max(numbers),
            "deviation": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
            "values": dict(sorted(found.items())),
        }
    )


def _figures(summary: Summary) -> dict[str, Any]:
    def milliseconds(name: str, clock: str) -> dict[str, float]:
        latency = summary.latency(name, clock)
        return {p.name.replace(".", ""): p.value * 1e3 for p in latency.percentiles if p.value is not None}

    return {
        "requests": summary.requests,
        "succeeded": summary.succeeded,
        "errors": dict(summary.errors),
        "outputTokensPerSecond": summary.output_tokens_per_s,
        "requestsPerSecond": summary.requests_per_s,
        "meanE2eMs": (summary.latency("e2e").mean_s or 0.0) * 1e3,
        "meanTtftMs": (summary.latency("ttft").mean_s or 0.0) * 1e3,
        "ttftMs": milliseconds("ttft", "service"),
        "e2eMs": milliseconds("e2e", "service"),
    }


def _read(cls: type[M], payload: Mapping[str, Any]) -> M:
    try:
        return cls.model_validate(payload)
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first_error["loc"])
        raise EvaluatorFault(f"payload.{where}: {first_error['msg']}", reason="BadPayload") from error


def _endpoint(wanted: _Ask, context: Context) -> ModelEndpoint:
    if wanted.base_url:
        return ModelEndpoint("target-0", wanted.base_url, wanted.model or "", name=wanted.provider)
    known = context.endpoints()
    found = [e for e in known if wanted.provider in (e.role, e.name) or not wanted.provider]
    if not found:
        names = ", ".join(sorted({e.role for e in known})) or "none"
        raise EvaluatorFault(
            f"this job has no endpoint {wanted.provider!r} (it has {names}): name a target, or give baseUrl",
            reason="TargetUnreachable",
        )
    chosen = next((e for e in found if e.ready), found[0])
    return ModelEndpoint(
        chosen.role, chosen.url, wanted.model or chosen.model, name=chosen.name, server_name=chosen.server_name,
        ca_pem=chosen.ca_pem, api_key=chosen.api_key,
    )  # fmt: skip


def _asker(wanted: _Ask, context: Context) -> Asker:
    style = Style(wanted.temperature, wanted.seed, wanted.max_tokens, takes_ignore_eos=False)
    return Asker([_endpoint(wanted, context)], style, clock=CLOCK)


def _image(content: bytes) -> dict[str, Any]:
    kind = next((name for start, name in _SIGNATURES.items() if content.startswith(start)), None)
    if kind is None:
        raise EvaluatorFault("an image is PNG, JPEG, GIF or WebP; this artifact is none of them", reason="BadDataset")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(content).decode()}"}}


def _number(value: Mapping[str, Any], path: str) -> float | None:
    found: Any = value
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
