"""The examples as a person applies them: a server on a Mac, one of the job's own, any endpoint, a gate.

Real generators, real model servers with random weights; nothing is faster than it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from espalier_cli.connection import artifacts_of
from espalier_cli.explain import explanation, gather
from espalier_cli.options import Where
from espalier_kit.errors import Permanent
from espalier_kube.cluster import BENCHMARK_COMPARISON, BENCHMARK_JOB, JOB, MODEL_SERVER, POD, Object
from tests.support.examples import SECONDS, apply, complete, example, is_answered
from tests.support.timed_server import TimedServer, Timing, spread
from tests.support.waiting import condition, has, until, until_gone

pytestmark = pytest.mark.timeout(600)

TRIES = 4


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


async def test_any_endpoint_is_measured_from_linux_and_from_a_mac_and_costs_what_it_costs(platform, namespace) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        for name, placement in (("elsewhere", "linux"), ("from-a-mac", "mlx")):
            document = yaml.safe_load(example("endpoint", **{"http://127.0.0.1:11434": url}))
            document["metadata"] = {"name": name, "namespace": namespace}
            document["spec"]["generators"] = {"placement": placement}
            await platform.cluster.create(document)
        jobs = [await complete(platform, namespace, name) for name in ("elsewhere", "from-a-mac")]
    for job, node in zip(jobs, ("linux-", "mac-"), strict=True):
        (target,) = job["status"]["targets"]
        assert (target["requests"], target["succeeded"]) == (20, 20)
        assert target["outputTokens"] == 20 * 8
        assert job["status"]["headline"]["ttftP50Ms"] > 0
        assert job["status"]["cost"] == pytest.approx(20 * (5 * 0.15 + 8 * 0.6) / 1e6)
        owned = f"espalier.dev/owner-name={job['metadata']['name']}"
        (pod,) = (await platform.cluster.list(POD, namespace, labels=owned)).items
        assert pod["spec"]["nodeName"].startswith(node)


async def test_a_comparison_is_a_gate_that_an_equal_server_passes_and_a_slower_one_does_not(
    platform, kubectl, namespace
) -> None:
    old, new, slow = (TimedServer(steady(scale)) for scale in (1.0, 1.0, 1.6))
    async with old.serving() as before, new.serving() as after, slow.serving() as slower:
        good, bad, _ = await asyncio.gather(
            compared(platform, namespace, "equal", before, after),
            compared(platform, namespace, "worse", before, slower),
            waits_for_its_runs(platform, namespace, "equal-0", "equal-runs-0"),
        )
    assert good["status"]["verdict"] in ("Passed", "Improved"), good["status"]
    assert bad["status"]["verdict"] == "Regressed", bad["status"]
    for job in (good, bad):
        status = job["status"]
        assert condition(job, "Passed")["reason"] == status["verdict"]
        assert (status["interleaved"], status["metric"]) == (True, "e2e")
        (difference,) = status["differences"]
        assert (difference["metric"], difference["samples"]) == ("e2e", 8)
        assert difference["low"] <= difference["delta"] <= difference["high"]
    passed, refused = (f"bmc/{job['metadata']['name']}" for job in (good, bad))
    kubectl("-n", namespace, "wait", "--for=condition=Passed", passed, "--timeout=5s")
    kubectl("-n", namespace, "wait", "--for=condition=Passed=False", refused, "--timeout=5s")
    with pytest.raises(AssertionError, match="timed out waiting for the condition"):
        kubectl("-n", namespace, "wait", "--for=condition=Passed", refused, "--timeout=1s")


def steady(scale: float) -> Callable[[int], Timing]:
    """Every answer takes the same 150 ms, times `scale`: all that differs between two such servers is noise."""
    return lambda number: Timing(0.1 * scale, 0.007 * scale, 8)


async def compared(platform: Any, namespace: str, name: str, old: str, new: str) -> Object:
    """The comparison of these two servers. A run that a busy machine made invalid, or too noisy, is repeated."""
    for number in range(TRIES):
        runs, comparison = f"{name}-runs-{number}", f"{name}-{number}"
        addresses = {"http://127.0.0.1:11434": old, "http://127.0.0.1:11435": new}
        await apply(
            platform, namespace, example("compare", **addresses, **{"old-and-new": runs, "old-or-new": comparison})
        )
        job = await complete(platform, namespace, comparison, BENCHMARK_COMPARISON)
        if condition(job, "Passed")["reason"] not in ("InvalidRun", "Inconclusive"):
            return job
        assert condition(job, "Passed")["status"] == "False"
    raise AssertionError(f"{name}: the machine was too busy to tell, {TRIES} times")


async def waits_for_its_runs(platform: Any, namespace: str, comparison: str, runs: str) -> None:
    """What it says while they run."""
    await until(
        platform.cluster, BENCHMARK_JOB, namespace, runs, has("Progressing", "True", "Running"), timeout_s=SECONDS,
        what="Running",
    )
    waiting = await until(
        platform.cluster, BENCHMARK_COMPARISON, namespace, comparison, has("Progressing", "False", "WaitingForRuns"),
        timeout_s=SECONDS, what="WaitingForRuns",
    )
    assert runs in condition(waiting, "Progressing")["message"]
    said = explanation(await gather(platform.cluster, comparison, namespace, BENCHMARK_COMPARISON))
    assert "WaitingForRuns" in said.sentence


async def test_questions_with_known_answers_are_asked(platform, namespace) -> None:
    await apply(platform, namespace, example("accuracy"))
    job = await complete(platform, namespace, "how-right")
    (found,) = job["status"]["accuracy"]
    assert (found["sandbox"], job["status"]["sandbox"]) == ("bubblewrap", "bubblewrap"), "these nodes run processes"
    assert (found["name"], found["items"], found["metric"]) == ("reasoning-gym:chain_sum", 6, "share")
    assert 0 <= found["low"] <= found["high"] <= 1
    assert found["low"] - 1e-9 <= found["value"] <= found["high"] + 1e-9


async def test_what_only_the_data_can_show_is_told_and_not_accepted(platform, namespace) -> None:
    """All at once, because each waits for a worker of its own."""
    server, where = TimedServer(spread(3, scale=0.2)), Where(platform.local.kubeconfig, namespace)
    async with server.serving() as url, artifacts_of(platform.cluster, where) as store:
        whole = b'{"prompt": "Say hello.", "text": "The quick brown fox jumps."}\n'
        texts, broken = [f"artifact://{await store.put(found)}" for found in (whole, whole + b'{"prompt": \n')]
        bad = bad_measures(texts=texts, broken=broken)
        found = await asyncio.gather(*(
            refused(platform, namespace, f"bad-{number}", reason, **measuring(url, **change))
            for number, (reason, change, _) in enumerate(bad)
        ))  # fmt: skip
    assert [(said, wanted) for said, (_, _, wanted) in zip(found, bad, strict=True) if wanted not in said] == []
    assert len((await platform.cluster.list(JOB, namespace)).items) == len(bad)


def bad_measures(*, texts: str, broken: str) -> tuple[tuple[str, dict[str, Any], str], ...]:
    """Reason of Accepted=False, what is wrong with the spec, a piece of the sentence."""
    perplexity = {"load": None, "accuracy": {"evaluators": ["perplexity"], "texts": {"uri": texts}}}
    return (
        ("TargetUnreachable", {"targets": [{"endpoint": {"url": "http://127.0.0.1:9", "model": "m"}}]}, "target-0"),
        ("UnknownPack", {"accuracy": {"packs": [{"name": "no-such-pack"}]}}, "no-such-pack"),
        ("SourceNotFound", {"dataset": {"file": {"uri": f"artifact://{'0' * 64}"}}}, "espalier push"),
        ("BadDataset", {"dataset": {"file": {"uri": broken}}}, "line 2 of the dataset"),
        ("NoLogProbabilities", perplexity, "gives no log-probabilities of a prompt, which perplexity needs"),
    )


def measuring(url: str, **change: Any) -> dict[str, Any]:
    """The spec of the endpoint's example with that address and these fields; None takes one away."""
    spec = yaml.safe_load(example("endpoint", **{"http://127.0.0.1:11434": url}))["spec"]
    return {field: value for field, value in {**spec, "limits": None, **change}.items() if value is not None}


async def test_an_objective_that_cannot_be_kept_is_refused_when_it_is_applied(platform, namespace) -> None:
    spec = measuring("http://127.0.0.1:9", slo={"ttftMs": 900, "e2eMs": 100})
    with pytest.raises(Permanent, match="the first token is allowed more time than the whole answer"):
        await refused(platform, namespace, "impossible", "", **spec)
    assert not (await platform.cluster.list(BENCHMARK_JOB, namespace)).items


def benchmark(name: str, namespace: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "espalier.dev/v1alpha1", "kind": "BenchmarkJob", "metadata": metadata, "spec": spec}


async def refused(platform: Any, namespace: str, name: str, reason: str, **spec: Any) -> str:
    """The sentence of Accepted=False for a BenchmarkJob with that spec."""
    await platform.cluster.create(benchmark(name, namespace, **spec))
    job = await until(
        platform.cluster, BENCHMARK_JOB, namespace, name, has("Accepted", "False", reason), timeout_s=SECONDS,
        what=reason,
    )
    said: str = condition(job, "Accepted")["message"]
    return said


async def test_a_workflow_runs_its_tasks_in_order_and_shows_what_came_out(platform, namespace) -> None:
    await apply(platform, namespace, example("workflow"))
    job = await complete(platform, namespace, "two-and-their-mean")
    assert job["status"]["tasks"] == {"pending": 0, "running": 0, "done": 3, "failed": 0}
    results = {found["name"]: found for found in job["status"]["results"]}
    assert json.loads(results["both"]["value"])["count"] == 2, results


async def test_a_workflow_that_cannot_run_is_told_in_a_sentence(platform, namespace) -> None:
    circle = [
        {"name": "a", "type": "analysis", "dependsOn": [{"task": "b"}]},
        {"name": "b", "type": "analysis", "dependsOn": [{"task": "a"}]},
    ]
    lone = [{"name": "a", "type": "analysis", "dependsOn": [{"task": "nobody"}]}]
    said = await asyncio.gather(
        refused(platform, namespace, "circle", "DependencyCycle", tasks=circle),
        refused(platform, namespace, "lone", "UnknownDependency", tasks=lone),
    )
    assert "in a circle" in said[0]
    assert "nobody" in said[1]


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
        load = {"pattern": "constant", "rate": 4, "durationSeconds": 5}
        made = await platform.cluster.create(benchmark("killed", namespace, **measuring(url, load=load)))
        await until_asked(server, 6)
        platform.kill("worker", made["metadata"]["uid"])
        job = await complete(platform, namespace, "killed")
    (target,) = job["status"]["targets"]
    assert (target["requests"], target["succeeded"]) == (20, 20)


async def until_asked(server: TimedServer, times: int) -> None:
    async with asyncio.timeout(SECONDS):
        while len(server.diary) < times:  # noqa: ASYNC110 - the server tells nobody that the load has begun
            await asyncio.sleep(0.05)


async def test_a_run_that_is_suspended_finishes_its_load_and_is_reported_when_it_goes_on(platform, namespace) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        load = {"pattern": "constant", "rate": 4, "durationSeconds": 8}
        made = await platform.cluster.create(benchmark("paused", namespace, **measuring(url, load=load)))
        await until_asked(server, 2)
        policy = {"suspend": True, "priority": 7}
        await platform.cluster.patch(BENCHMARK_JOB, "paused", namespace, {"spec": {"runPolicy": policy}})
        await until(
            platform.cluster, BENCHMARK_JOB, namespace, "paused", has("Suspended", "True", "SuspendedByUser"),
            timeout_s=60, what="Suspended",
        )
        await until_gone(platform.cluster, POD, namespace, labels="app.kubernetes.io/component=worker", timeout_s=90)
        assert len(server.diary) == 32
        work = await platform.work(namespace, made["metadata"]["uid"])
        assert (work["state"], work["counts"]["running"]) == ("suspended", 0)
        await espalier(platform, namespace, "jobs", "resume", "bj/paused")
        job = await complete(platform, namespace, "paused")
    (target,) = job["status"]["targets"]
    assert (target["requests"], target["succeeded"], len(server.diary)) == (32, 32, 32)
    assert (await platform.work(namespace, made["metadata"]["uid"]))["priority"] == 7


async def test_a_run_on_a_mac_is_cancelled_and_another_is_out_of_time(platform, namespace) -> None:
    server = TimedServer(spread(3, scale=0.2))
    async with server.serving() as url:
        for name, more in (
            ("stopped", {"generators": {"placement": "mlx"}}),
            ("late", {"runPolicy": {"activeDeadlineSeconds": 8}}),
        ):
            load = {"pattern": "constant", "rate": 2, "durationSeconds": 300}
            await platform.cluster.create(benchmark(name, namespace, **measuring(url, load=load, **more)))
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
