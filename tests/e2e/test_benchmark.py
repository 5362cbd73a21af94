"""The examples as a person applies them: a server on a Mac, one of the job's own, any endpoint, a gate.

Real generators, real model servers with random weights; nothing is faster than it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from espalier_cli.connection import artifacts_of
from espalier_cli.explain import explanation, gather
from espalier_cli.options import Where
from espalier_kube.cluster import BENCHMARK_COMPARISON, BENCHMARK_JOB, JOB, MODEL_SERVER, POD, Kind, Object
from tests.support.timed_server import TimedServer, spread
from tests.support.waiting import condition, has, until, until_gone

pytestmark = pytest.mark.timeout(600)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/benchmark"
SECONDS = 120


def example(name: str, **replaced: str) -> str:
    """The file, with literal pieces replaced."""
    text = (EXAMPLES / f"{name}.yaml").read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text


async def apply(platform: Any, namespace: str, text: str) -> None:
    for document in yaml.safe_load_all(text):
        document["metadata"]["namespace"] = namespace
        await platform.cluster.create(document)


async def complete(platform: Any, namespace: str, name: str, kind: Kind = BENCHMARK_JOB) -> Object:
    return await until(
        platform.cluster, kind, namespace, name, has("Complete"), timeout_s=SECONDS, what="Complete"
    )


async def file_of(platform: Any, namespace: str, job: Object, name: str) -> bytes:
    """A file of the report, by the address in the status."""
    (uri,) = [found["uri"] for found in job["status"]["files"] if found["name"] == name]
    async with artifacts_of(platform.cluster, Where(platform.local.kubeconfig, namespace)) as store:
        found: bytes = await store.get(uri.removeprefix("artifact://"))
    return found


async def espalier(platform: Any, namespace: str, *arguments: str) -> str:
    """What the command prints; it has to succeed."""
    where = ("-n", namespace, "--kubeconfig", str(platform.local.kubeconfig))
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "espalier_cli", *arguments, *where, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    out, told = await running.communicate()
    assert running.returncode == 0, told.decode()
    return out.decode()


def is_answered(target: dict[str, Any]) -> bool:
    """Whether every request was; random weights may end an answer before its first letter."""
    return {error["type"] for error in target.get("errors", ())} <= {"empty"} and target["succeeded"] > 0


async def test_a_server_on_a_virtual_node_is_measured(platform, kubectl, namespace) -> None:
    await apply(platform, namespace, example("modelserver"))
    job = await complete(platform, namespace, "tiny-under-load")
    status = job["status"]
    (target,) = status["targets"]
    assert (status["phase"], status["progressPercent"], target["name"]) == ("Complete", 100, "tiny")
    assert 6 <= target["requests"] <= 40
    assert is_answered(target), target["errors"]
    latencies = {(found["name"], found["clock"]) for found in target["latencies"]}
    assert {("ttft", "response"), ("e2e", "service")} <= latencies
    assert status["headline"]["ttftP50Ms"] > 0
    assert status["headline"]["outputTokensPerSecond"] > 0
    row = kubectl("-n", namespace, "get", "bj", "tiny-under-load").splitlines()[1].split()
    assert row[:3] == ["tiny-under-load", "Complete", "100"]
    shown = await espalier(platform, namespace, "benchmark", "report", "bj/tiny-under-load")
    assert "ttft" in shown
    page = await file_of(platform, namespace, job, "report.html")
    assert b"<svg" in page
    assert json.loads(await file_of(platform, namespace, job, "report.json"))


async def test_a_job_puts_its_server_on_a_mac_and_two_generators_start_together(platform, namespace) -> None:
    await apply(platform, namespace, example("template"))
    job = await complete(platform, namespace, "tiny-of-its-own")
    (target,) = job["status"]["targets"]
    assert target["requests"] == 18
    assert is_answered(target), target["errors"]
    passed, valid = condition(job, "Passed"), job["status"]["validity"]["verdict"]
    assert passed["reason"] == ("GatePassed" if valid == "Valid" else "GateInconclusive"), passed
    records = [found["name"] for found in job["status"]["files"] if found["name"].startswith("records")]
    assert len(records) == 2, job["status"]["files"]
    await until_gone(platform.cluster, MODEL_SERVER, namespace, timeout_s=60)


async def test_any_endpoint_is_measured_and_costs_what_it_costs(platform, namespace) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        await apply(platform, namespace, example("endpoint", **{"http://127.0.0.1:11434": url}))
        job = await complete(platform, namespace, "elsewhere")
    (target,) = job["status"]["targets"]
    assert (target["requests"], target["succeeded"]) == (20, 20)
    assert target["outputTokens"] == 20 * 8
    assert job["status"]["cost"] == pytest.approx(20 * (5 * 0.15 + 8 * 0.6) / 1e6)


async def test_a_comparison_is_a_gate(platform, kubectl, namespace) -> None:
    await apply(platform, namespace, example("compare"))
    waiting = await until(
        platform.cluster, BENCHMARK_COMPARISON, namespace, "old-or-new", has("Progressing", "False", "WaitingForRuns"),
        timeout_s=SECONDS, what="WaitingForRuns",
    )
    assert "old-and-new" in condition(waiting, "Progressing")["message"]
    said = explanation(await gather(platform.cluster, "old-or-new", namespace, BENCHMARK_COMPARISON))
    assert "WaitingForRuns" in said.sentence
    job = await complete(platform, namespace, "old-or-new", BENCHMARK_COMPARISON)
    status = job["status"]
    assert (status["interleaved"], status["metric"]) == (True, "e2e")
    (difference,) = [found for found in status["differences"] if found["metric"] == "e2e"]
    assert difference["low"] <= difference["delta"] <= difference["high"]
    verdicts = {name for name in ("Improved", "Regressed", "Inconclusive") if condition(job, name)["status"] == "True"}
    assert verdicts <= {status["verdict"]}
    if condition(job, "Passed")["status"] == "True":
        kubectl("-n", namespace, "wait", "--for=condition=Passed", "bmc/old-or-new", "--timeout=5s")
    else:
        assert condition(job, "Passed")["reason"] in ("InvalidRun", "Regressed", "Inconclusive")


async def test_questions_with_known_answers_are_asked(platform, namespace) -> None:
    await apply(platform, namespace, example("accuracy"))
    job = await complete(platform, namespace, "how-right")
    (found,) = job["status"]["accuracy"]
    assert (found["sandbox"], job["status"]["sandbox"]) == ("bubblewrap", "bubblewrap"), "these nodes run processes"
    assert (found["name"], found["items"], found["metric"]) == ("reasoning-gym:chain_sum", 6, "share")
    assert 0 <= found["low"] <= found["high"] <= 1
    assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"targets": [{"endpoint": {"url": "http://127.0.0.1:9", "model": "m"}}]}, "TargetUnreachable", "target-0"),
        ({"accuracy": {"packs": [{"name": "no-such-pack"}]}}, "UnknownPack", "no-such-pack"),
        ({"dataset": {"file": {"uri": f"artifact://{'0' * 64}"}}}, "SourceNotFound", "espalier push"),
    ],
    ids=["unreachable", "unknown pack", "no file"],
)
async def test_what_only_the_data_can_show_is_told_and_not_accepted(platform, namespace, change, reason, said) -> None:
    document = yaml.safe_load(example("endpoint"))
    document["metadata"] = {"name": "bad", "namespace": namespace}
    del document["spec"]["limits"]
    document["spec"].update(change)
    await platform.cluster.create(document)
    job = await until(
        platform.cluster, BENCHMARK_JOB, namespace, "bad", has("Accepted", "False", reason), timeout_s=SECONDS,
        what=reason,
    )
    assert job["status"]["phase"] == "Failed"
    assert said in condition(job, "Accepted")["message"]
    assert (await platform.cluster.list(JOB, namespace)).items


async def test_a_workflow_runs_its_tasks_in_order_and_shows_what_came_out(platform, namespace) -> None:
    await apply(platform, namespace, example("workflow"))
    job = await complete(platform, namespace, "two-and-their-mean")
    assert job["status"]["tasks"] == {"pending": 0, "running": 0, "done": 3, "failed": 0}
    results = {found["name"]: found for found in job["status"]["results"]}
    assert json.loads(results["both"]["value"])["count"] == 2, results


async def refused(platform: Any, namespace: str, name: str, reason: str, **spec: Any) -> str:
    """The sentence of Accepted=False for a BenchmarkJob with that spec."""
    body = {"apiVersion": "espalier.dev/v1alpha1", "kind": "BenchmarkJob", "spec": spec}
    await platform.cluster.create({**body, "metadata": {"name": name, "namespace": namespace}})
    job = await until(
        platform.cluster, BENCHMARK_JOB, namespace, name, has("Accepted", "False", reason), timeout_s=SECONDS,
        what=reason,
    )
    said: str = condition(job, "Accepted")["message"]
    return said


async def test_a_workflow_that_cannot_run_is_told_in_a_sentence(platform, namespace) -> None:
    circle = [
        {"name": "a", "type": "analysis", "dependsOn": [{"task": "b"}]},
        {"name": "b", "type": "analysis", "dependsOn": [{"task": "a"}]},
    ]
    assert "in a circle" in await refused(platform, namespace, "circle", "DependencyCycle", tasks=circle)
    lone = [{"name": "a", "type": "analysis", "dependsOn": [{"task": "nobody"}]}]
    assert "nobody" in await refused(platform, namespace, "lone", "UnknownDependency", tasks=lone)


TEMPLATE = """
tasks:
  - {key: ask, type: benchmark, payload: {baseUrl: "{url}", model: timed, iterations: "{times:json}"}}
  - {key: mean, type: analysis, payload: {field: meanE2eMs}, depends_on: [{key: ask}]}
required: [url]
defaults: {times: "2"}
"""


async def test_a_job_from_a_template_waits_until_there_is_one(platform, namespace, tmp_path) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        parameters = [{"name": "url", "value": url}, {"name": "times", "value": "5"}]
        ref = {"name": "measure", "parameters": parameters}
        assert "'measure'" in await refused(platform, namespace, "from-template", "UnknownTemplate", templateRef=ref)
        (tmp_path / "measure.yaml").write_text(TEMPLATE)
        await espalier(platform, namespace, "jobs", "template", "put", "measure", str(tmp_path / "measure.yaml"))
        job = await complete(platform, namespace, "from-template")
    assert job["status"]["tasks"]["done"] == 2
    assert condition(job, "Accepted")["status"] == "True"
    assert len(server.diary) == 5


async def test_a_generator_that_is_killed_is_replaced_and_every_request_counts_once(platform, namespace) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        document = yaml.safe_load(example("endpoint", **{"http://127.0.0.1:11434": url}))
        document["metadata"] = {"name": "killed", "namespace": namespace}
        document["spec"]["load"] = {"pattern": "constant", "rate": 4, "durationSeconds": 5}
        made = await platform.cluster.create(document)
        async with asyncio.timeout(SECONDS):
            while len(server.diary) < 6:  # noqa: ASYNC110 - the server tells nobody that the load has begun
                await asyncio.sleep(0.05)
        platform.kill("worker", made["metadata"]["uid"])
        job = await complete(platform, namespace, "killed")
    (target,) = job["status"]["targets"]
    assert (target["requests"], target["succeeded"]) == (20, 20)


async def test_a_run_on_a_mac_is_cancelled_and_another_is_out_of_time(platform, namespace) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        for name, more in (
            ("stopped", {"generators": {"placement": "mlx"}}),
            ("late", {"runPolicy": {"activeDeadlineSeconds": 8}}),
        ):
            document = yaml.safe_load(example("endpoint", **{"http://127.0.0.1:11434": url}))
            document["metadata"] = {"name": name, "namespace": namespace}
            load = {"pattern": "constant", "rate": 2, "durationSeconds": 300}
            document["spec"] |= {"load": load, **more}
            await platform.cluster.create(document)
        await until(
            platform.cluster, BENCHMARK_JOB, namespace, "stopped", has("Progressing", "True", "Running"),
            timeout_s=SECONDS, what="Running",
        )
        (pod,) = (await platform.cluster.list(POD, namespace, labels="espalier.dev/owner-name=stopped")).items
        assert pod["spec"]["nodeName"].startswith("mac-")
        await platform.cluster.patch(
            BENCHMARK_JOB, "stopped", namespace, {"spec": {"runPolicy": {"cancel": True}}}
        )
        for name, type_, reason in (
            ("stopped", "Cancelled", "CancelledByUser"), ("late", "Failed", "DeadlineExceeded")
        ):
            await until(
                platform.cluster, BENCHMARK_JOB, namespace, name, has(type_, "True", reason), timeout_s=60, what=reason
            )
