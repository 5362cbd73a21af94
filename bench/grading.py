"""A class of synthetic submissions through the real coordinator and worker processes, against judges of simulated
speed.

The limit is the time that the slower of the two servers needs for its tokens if it never waits. Speeds are the seed's
(30 and 35 tokens a second), one request at a time, and time is compressed ten times: everything that is ours
(coordinator, workers, network, disk) runs at its true speed, so its share shows ten times larger than in a real class.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil
import yaml
from nbformat.v4 import new_markdown_cell, new_notebook

from bench.coordinator_process import CoordinatorProcess, stub
from bench.runner import Options, Result, Scenario, machine, repeat
from espalier_api.gradingjob import Execution, PerformanceTargets
from espalier_api.tasks import GradingSettings, JudgeSettings, ReportValue
from espalier_coordinator.local import NAME
from espalier_grading.archive import write_tar
from espalier_rpc.artifacts import HttpArtifacts, web_client
from espalier_rpc.v1 import coordinator_pb2 as pb

UID = "bench-grading"
SUBMISSIONS, QUICK_SUBMISSIONS = 1000, 60
COMPRESSION = 10.0
PROMPT_SPEED = 1000.0
"""Tokens of a prompt evaluated per second."""
SPEEDS = {"code": 30.0, "feedback": 35.0}
OUTPUT_TOKENS = {"code": 110, "feedback": 126}
"""A verdict of four or five criteria with short keys, counted with SmolLM2's tokenizer."""
WORKERS, CAPACITY = 2, 6
_START_SECONDS = 30.0
_PATIENCE = 4.0
"""Times the limit before a run counts as stuck."""


async def measure(submissions: int) -> Mapping[str, float]:
    """One class from SubmitJob to the report. Raises where a submission is missing or not graded."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        coordinator = CoordinatorProcess(folder)
        coordinator.start()
        stack.callback(coordinator.close)
        urls = {judge: stack.enter_context(_model_server(judge)) for judge in SPEEDS}
        for number in range(WORKERS):
            stack.enter_context(_worker(coordinator, number))
        async with _artifacts(coordinator) as store:
            settings = _settings(await store.put(bundle()), await store.put(class_of(submissions)))
            await _ready(urls)
            started = time.monotonic()
            await _submit(coordinator, settings, urls)
            report = await _reported(coordinator, seconds=60 + _PATIENCE * limit_seconds(submissions))
            elapsed = time.monotonic() - started
            figures = json.loads(await store.get(json.loads(await store.get(report.index))["files"]["report.json"]))
        ours = [child.cpu_times() for child in psutil.Process().children() if _is_ours(child)]
    if report.submissions.graded != submissions:
        raise RuntimeError(f"of {submissions} submissions {report.submissions} were graded")
    bound = max(_model_seconds(figures, judge) for judge in SPEEDS) / COMPRESSION
    return {
        "elapsed": elapsed, "limit": bound, "fraction": bound / elapsed,
        "per_hour": submissions * 3600 / (elapsed * COMPRESSION),
        "cpu": sum(times.user + times.system for times in ours) / submissions,
        "overlap": report.parallel_speedup or 0.0, "efficiency": report.parallel_efficiency or 0.0,
    }  # fmt: skip


def limit_seconds(submissions: int) -> float:
    """About how long the slower judge needs, in compressed seconds; for deadlines."""
    slowest = max(OUTPUT_TOKENS[judge] / speed for judge, speed in SPEEDS.items())
    return submissions * (slowest + 0.5) / COMPRESSION


def bundle() -> bytes:
    """One notebook with a question for each judge and nothing to run: execution is a no-op."""
    criteria = [
        {"id": judge, "points": 1, "judge": judge, "cells": [f"essay/{judge}"], "question": "Does it give a reason?"}
        for judge in SPEEDS
    ]
    assignment = {
        "name": "essay", "total": 2, "rubric": criteria,
        "notebooks": [{"name": "essay", "release": "release.ipynb", "solution": "solution.ipynb"}],
    }  # fmt: skip
    return write_tar({
        "assignment.yaml": yaml.safe_dump(assignment).encode(),
        "release.ipynb": notebook("YOUR ANSWER HERE"), "solution.ipynb": notebook("Because."),
    })  # fmt: skip


def class_of(size: int) -> bytes:
    """A tar of `size` students, each with an answer of their own."""
    return write_tar({
        f"student-{n:04d}/essay.ipynb": notebook(f"Because of reason {n}. " + "It follows from the numbers. " * 20)
        for n in range(size)
    })  # fmt: skip


def notebook(text: str) -> bytes:
    """Two markdown answers."""
    cells = [
        new_markdown_cell(f"{text} ({judge})", metadata={"nbgrader": {
            "grade_id": judge, "grade": True, "solution": True, "points": 1, "schema_version": 3, "locked": False,
        }})
        for judge in SPEEDS
    ]  # fmt: skip
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return str(nbformat.writes(new_notebook(cells=cells))).encode()


def _settings(assignment: str, submissions: str) -> GradingSettings:
    return GradingSettings(
        assignment=assignment, submissions=submissions, scale_points=37.5, execution=Execution(),
        targets=PerformanceTargets(), code=JudgeSettings(max_tokens=800, temperature=0.1, seed=1),
        feedback=JudgeSettings(max_tokens=1200, temperature=0.3, seed=1),
    )  # fmt: skip


def _model_seconds(figures: Mapping[str, Any], judge: str) -> float:
    """What one server needed for its prompts and answers, by its own figures, uncompressed."""
    own = figures[f"{judge}_performance"]
    return float(own["generation_time_seconds"]) + float(own["prompt_eval_time_seconds"])


async def _submit(coordinator: CoordinatorProcess, settings: GradingSettings, urls: Mapping[str, str]) -> None:
    endpoints = [pb.Endpoint(role=judge, url=url, model=judge, name=judge, ready=True) for judge, url in urls.items()]
    payload = json.dumps(settings.wire()).encode()
    async with coordinator.channel("admin") as channel:
        await stub(channel).SubmitJob(pb.SubmitJobRequest(
            uid=UID, namespace="default", name="class", kind="GradingJob", retries=3, task_timeout_s=600,
            tasks=[pb.TaskSpec(key="admit", type="grading.admit", payload=payload)],
            endpoints=pb.EndpointList(endpoints=endpoints),
        ))  # fmt: skip


async def _reported(coordinator: CoordinatorProcess, *, seconds: float) -> ReportValue:
    async with asyncio.timeout(seconds), coordinator.channel("admin") as channel:
        async for view in stub(channel).WatchJobs(pb.WatchJobsRequest()):
            if view.state == "complete":
                values = {outcome.key: outcome for outcome in view.outcomes}
                if "report" not in values or values["report"].state != "done":
                    raise RuntimeError(f"the class has no report: {view}"[:2000])
                return ReportValue.model_validate_json(values["report"].value)
    raise RuntimeError("the coordinator ended the watch")


@contextlib.asynccontextmanager
async def _artifacts(coordinator: CoordinatorProcess) -> AsyncIterator[HttpArtifacts]:
    ca_pem = (coordinator.folder / "tls" / "ca.crt").read_text()
    token = (coordinator.folder / "worker.token").read_text()
    async with web_client(f"https://127.0.0.1:{coordinator.http_port}", ca_pem=ca_pem) as http:
        yield HttpArtifacts(http, namespace="default", token=lambda: token, server_name=NAME)


@contextlib.contextmanager
def _worker(coordinator: CoordinatorProcess, number: int) -> Iterator[None]:
    variables = {
        "COORDINATOR": f"127.0.0.1:{coordinator.grpc_port}", "COORDINATOR_NAME": NAME, "NAMESPACE": "default",
        "COORDINATOR_WEB": f"https://127.0.0.1:{coordinator.http_port}", "CAPACITY": str(CAPACITY), "PORT": "0",
        "CA_FILE": str(coordinator.folder / "tls" / "ca.crt"), "TOKEN_FILE": str(coordinator.folder / "worker.token"),
        "ID": f"worker-{number}", "JOB_UID": UID,
    }  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    environment = own | {f"ESPALIER_WORKER_{name}": value for name, value in variables.items()}
    with _process(["-m", "espalier_worker"], coordinator.folder / f"worker-{number}.log", environment):
        yield


@contextlib.contextmanager
def _model_server(judge: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wishes = {
        "port": port, "model": judge, "tokens-per-second": SPEEDS[judge], "prompt-tokens-per-second": PROMPT_SPEED,
        "compression": COMPRESSION, "output-tokens": OUTPUT_TOKENS[judge], "slots": 1,
    }  # fmt: skip
    arguments = [part for name, value in wishes.items() for part in (f"--{name}", str(value))]
    with _process(["-m", "bench.model_server", *arguments], Path(os.devnull), dict(os.environ)):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _process(arguments: list[str], log: Path, environment: dict[str, str]) -> Iterator[None]:
    root = Path(__file__).resolve().parent.parent
    with log.open("ab") as stderr:
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stderr=stderr, cwd=root)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ours(process: psutil.Process) -> bool:
    return bool({"espalier_coordinator", "espalier_worker"} & set(process.cmdline()))


async def _ready(urls: Mapping[str, str]) -> None:
    end = time.monotonic() + _START_SECONDS
    async with httpx.AsyncClient(trust_env=False) as client:
        for url in urls.values():
            while True:
                try:
                    (await client.get(f"{url}/ready")).raise_for_status()
                    break
                except httpx.HTTPError:
                    if time.monotonic() > end:
                        raise
                    await asyncio.sleep(0.05)


def run(options: Options) -> Result:
    """Whole classes, one after the other."""
    submissions = QUICK_SUBMISSIONS if options.quick else SUBMISSIONS
    units = {
        "elapsed": "s", "limit": "s", "fraction": "of the limit", "per_hour": "submissions/h",
        "cpu": "CPU s/submission", "overlap": "×", "efficiency": "of the bound",
    }  # fmt: skip
    figures = repeat(lambda: asyncio.run(measure(submissions)), warmup=0, n=1, units=units)
    note = (
        f"SIMULATED judges: {submissions} submissions without code to run, {SPEEDS['code']:g} and "
        f"{SPEEDS['feedback']:g} tokens/s, one request at a time, {OUTPUT_TOKENS['code']} and "
        f"{OUTPUT_TOKENS['feedback']} tokens an answer, time compressed {COMPRESSION:g} times. Elapsed is from "
        f"SubmitJob to the written report; the limit is the slower server's own time; submissions/h are uncompressed. "
        f"CPU is that "
        f"of the coordinator and {WORKERS} workers."
    )
    ratios = {"of the model-bound limit": figures["fraction"].median}
    return Result("grading", machine(), options.seed, 0, 1, figures, ratios=ratios, note=note)


SCENARIO = Scenario("grading", "A class through coordinator and workers, against judges of simulated Mac speed", run)
