"""A BenchmarkComparison's life: it waits for two runs, has them compared, and tells the verdict as conditions."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_api.benchmarktasks import COMPARISON_REJECTIONS, CompareTask
from espalier_api.reasons import REASONS
from espalier_kube.cluster import BENCHMARK_COMPARISON, JOB, Object
from espalier_rpc.views import Counts, TaskOutcome
from tests.support.benchmark import ENDPOINT, INVALID, REPORT
from tests.support.operator_world import NAMESPACE, World, benchmark_job, comparison, conditions

DIFFERENCE = {
    "metric": "e2e", "verdict": "Passed", "why": "within the margin", "samples": 12, "higherIsBetter": False,
    "delta": 0.012, "low": -0.01, "high": 0.034, "p": 0.4, "minDetectableEffect": 0.03,
}
VALUE: dict[str, Any] = {
    "verdict": "Passed", "metric": "e2e", "delta": 0.012, "interleaved": False, "differences": [DIFFERENCE],
    "index": "f" * 64,
}


async def run_ended(world: World, name: str, **report: Any) -> None:
    made = await world.create(benchmark_job(name, targets=[ENDPOINT]))
    done = TaskOutcome("report", "benchmark.report", "done", value={**REPORT, **report})
    world.coordinator.move(made["metadata"]["uid"], state="complete", outcomes=(done,), tallies={"admitted": 1.0})
    await world.settle()


async def both_ended(world: World, **report: Any) -> str:
    await run_ended(world, "before", **report)
    await run_ended(world, "after")
    return str((await world.create(comparison()))["metadata"]["uid"])


async def gate(world: World) -> Object:
    return await world.job("gate", BENCHMARK_COMPARISON)


async def compared(world: World, uid: str, **value: Any) -> Object:
    done = TaskOutcome("compare", "benchmark.compare", "done", value={**VALUE, **value})
    world.coordinator.move(uid, state="complete", outcomes=(done,), counts=Counts(done=1))
    await world.settle()
    return await gate(world)


async def test_it_waits_for_its_runs_and_names_the_one() -> None:
    world = await World().begin()
    made = await world.create(comparison())
    uid = made["metadata"]["uid"]
    assert conditions(await gate(world))["Progressing"] == ("False", "RunNotFound")
    await run_ended(world, "before")
    later = await world.create(benchmark_job("after", targets=[ENDPOINT]))
    assert conditions(await gate(world))["Progressing"] == ("False", "WaitingForRuns")
    assert (await gate(world))["status"]["phase"] == "Waiting"
    assert uid not in world.coordinator.requests
    done = TaskOutcome("report", "benchmark.report", "done", value=REPORT)
    world.coordinator.move(later["metadata"]["uid"], state="complete", outcomes=(done,))
    await world.settle()
    task = CompareTask.model_validate(world.coordinator.requests[uid].tasks[0].payload)
    assert (task.baseline.job, task.candidate.job, task.baseline.target) == ("before", "after", "target-0")
    assert task.baseline.index == "d" * 64
    assert await world.names(JOB) == ["after-generator", "before-generator", "gate-comparison"]
    job = await world.cluster.get(JOB, "gate-comparison", NAMESPACE)
    assert job["spec"]["completions"] == 1


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("Improved", {"Improved": "True", "Regressed": "False", "Inconclusive": "False", "Passed": "True"}),
        ("Passed", {"Improved": "False", "Regressed": "False", "Inconclusive": "False", "Passed": "True"}),
        ("Regressed", {"Improved": "False", "Regressed": "True", "Inconclusive": "False", "Passed": "False"}),
        ("Inconclusive", {"Improved": "False", "Regressed": "False", "Inconclusive": "True", "Passed": "False"}),
    ],
)
async def test_the_verdict_stands_as_conditions(verdict: str, expected: dict[str, str]) -> None:
    world = await World().begin()
    uid = await both_ended(world)
    job = await compared(world, uid, verdict=verdict)
    assert {name: conditions(job)[name][0] for name in expected} == expected
    assert (job["status"]["verdict"], job["status"]["delta"], job["status"]["phase"]) == (verdict, 1.2, "Complete")
    assert job["status"]["differences"][0]["minDetectableEffect"] == 0.03


async def test_an_invalid_run_passes_no_gate() -> None:
    world = await World().begin()
    job = await compared(world, await both_ended(world, validity=INVALID))
    assert conditions(job)["Passed"] == ("False", "InvalidRun")
    assert conditions(job)["Degraded"] == ("True", "InvalidRun")


@pytest.mark.parametrize("reason", COMPARISON_REJECTIONS)
async def test_runs_that_cannot_be_compared_are_told(reason: str) -> None:
    assert reason in REASONS
    world = await World().begin()
    uid = await both_ended(world)
    refused = TaskOutcome("compare", "benchmark.compare", "failed", reason=reason, message="not the same items")
    world.coordinator.move(uid, state="complete", outcomes=(refused,), counts=Counts(failed=1))
    await world.settle()
    assert conditions(await gate(world))["Accepted"] == ("False", reason)
    assert conditions(await gate(world))["Failed"] == ("True", reason)


async def test_two_targets_of_one_run_must_be_named() -> None:
    world = await World().begin()
    twins = [{**ENDPOINT, "name": "old"}, {**ENDPOINT, "name": "new"}]
    made = await world.create(benchmark_job("before", targets=twins))
    done = TaskOutcome("report", "benchmark.report", "done", value=REPORT)
    world.coordinator.move(made["metadata"]["uid"], state="complete", outcomes=(done,))
    await world.settle()
    sides = {"baseline": {"benchmarkJob": "before", "target": "old"}, "candidate": {"benchmarkJob": "before"}}
    await world.create(comparison(**sides))
    assert conditions(await gate(world))["Accepted"] == ("False", "TargetNotFound")
    sides["candidate"]["target"] = "new"
    uid = (await world.create(comparison("named", **sides)))["metadata"]["uid"]
    task = CompareTask.model_validate(world.coordinator.requests[uid].tasks[0].payload)
    assert (task.baseline.target, task.candidate.target) == ("old", "new")


async def test_a_run_that_ended_without_a_report_cannot_be_compared() -> None:
    world = await World().begin()
    made = await world.create(benchmark_job("before", targets=[ENDPOINT]))
    failed = TaskOutcome("report", "benchmark.report", "failed", message="disk full")
    world.coordinator.move(made["metadata"]["uid"], state="complete", outcomes=(failed,), counts=Counts(failed=1))
    await world.settle()
    await world.create(comparison())
    assert conditions(await gate(world))["Failed"] == ("True", "RunFailed")
    assert (await gate(world))["status"]["phase"] == "Failed"
    assert world.coordinator.requests.keys() == {made["metadata"]["uid"]}
