"""Names, ends, lines and tables of jobs; following one to its end."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from espalier_api.meta import Condition
from espalier_api.reasons import REASONS
from espalier_cli.connection import SUBMITTER, artifacts_of, job_of, submitter_token
from espalier_cli.finding import find_object
from espalier_cli.listing import OF_OBJECTS, STATUSES, Wanted, table
from espalier_cli.objects import columns_table, ended_as, ending, follow_job, status_line
from espalier_cli.options import Where, job_name
from espalier_coordinator.calls.listing import STATUSES as COORDINATORS
from espalier_kit.errors import Conflict, Misconfigured, NotFound, Permanent
from espalier_kube.cluster import BENCHMARK_JOB, CONFIG_MAP, GRADING_JOB, SERVICE_ACCOUNT, Kind
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import config_map, metadata, typed
from espalier_operator.plan.conditions import TERMINAL, job_phase


def condition(type_: str, status: str, reason: str = "R") -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": ""}


def job(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    made = typed(GRADING_JOB, metadata("class", "course"), spec={})
    made["status"] = {"conditions": list(conditions), **status}
    return made


@pytest.mark.parametrize("text", ["class", "gj/class", "gradingjob/class", "gradingjobs.espalier.dev/class"])
def test_references(text: str) -> None:
    assert job_name(text) == "class"


@pytest.mark.parametrize("text", ["pod/class", "", "gj/", "Class", "a_b", "gj/a/b"])
def test_wrong_references_are_refused(text: str) -> None:
    with pytest.raises(Permanent):
        job_name(text)


@pytest.mark.parametrize(
    ("conditions", "ended"),
    [
        ((), None),
        ((condition("Progressing", "True"),), None),
        ((condition("Complete", "False"),), None),
        ((condition("Complete", "True"),), "Complete"),
        ((condition("Cancelled", "True"), condition("Complete", "False")), "Cancelled"),
        ((condition("Failed", "True"), condition("Accepted", "False", "BundleRejected")), "Failed"),
        ((condition("Accepted", "False", "SecretNotFound"),), None),
    ],
)
def test_how_a_job_ended(conditions: tuple[dict[str, str], ...], ended: str | None) -> None:
    assert ended_as(job(*conditions)) == ended


def test_status_line() -> None:
    counts = {"total": 9, "graded": 3, "needsReview": 2, "notGradable": 1, "failed": 0}
    assert status_line(job(phase="Running", submissions=counts, estimatedSecondsLeft=40)) == (
        "Running, 4/9 submissions, about 40 s left"
    )
    assert status_line({"metadata": {}}) == "not yet seen by the operator"


@pytest.mark.parametrize(
    ("given", "ended", "said"),
    [
        (job(condition("Complete", "True")), "Complete", "class: Complete"),
        (job(condition("Failed", "True", "BundleRejected")), "Failed", "class: Failed\nBundleRejected"),
        (
            job(condition("Complete", "True"), resultUri="artifact://x"), "Complete",
            "class: Complete\nsee it with: espalier report gj/class -n course",
        ),
    ],
    ids=["complete", "failed", "with a report"],
)
def test_last_words(given: dict[str, Any], ended: str, said: str) -> None:
    assert ending(given, ended) == said


def benchmark() -> dict[str, Any]:
    made = typed(BENCHMARK_JOB, metadata("load", "course"), spec={})
    made["status"] = {"phase": "Complete", "headline": {"ttftP50Ms": 48.25}, "validity": {"verdict": "Valid"}}
    return made


def submitted(**fields: Any) -> dict[str, Any]:
    """A job that only a coordinator has."""
    counts = {"pending": "1", "running": "2", "done": "3", "failed": "0"}
    return {"namespace": "course", "name": "sums", "kind": "", "uid": "u", "state": "running", "counts": counts,
            "fraction": 0.5, "message": "", **fields}


def shown(table: Table) -> list[str]:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text().splitlines()


def test_table_has_a_dash_where_nothing_is_known() -> None:
    lines = shown(columns_table(GRADING_JOB, (job(phase="Complete", scores={"mean": 21.3333}), job())))
    assert lines[1].split() == ["course", "class", "Complete", "-", "-", "21.33", "-", "-"]
    assert lines[2].split() == ["course", "class", "-", "-", "-", "-", "-", "-"]


def test_a_benchmark_has_the_columns_of_kubectl_get() -> None:
    head, row = shown(columns_table(BENCHMARK_JOB, [benchmark()]))
    assert head.split()[:3] == ["namespace", "name", "phase"]
    assert row.split() == ["course", "load", "Complete", "-", "48.25", "-", "-", "Valid", "-"]


def test_all_kinds_and_the_coordinators_own_jobs_in_one_table() -> None:
    counts = {"total": 9, "graded": 3}
    made = job(phase="Running", progressPercent=33, estimatedSecondsLeft=40, submissions=counts)
    head, *rows = shown(table(Wanted(), [made, benchmark()], [submitted()]))
    assert head.split() == ["namespace", "kind", "name", "phase", "done", "eta", "figures"]
    assert [" ".join(row.split()) for row in rows] == [
        "course gj class Running 33% 40 3/9 submissions", "course bj load Complete - - TTFT p50 48.2 ms, Valid",
        "course job sums Running 50% - 3 done, 2 running, 1 pending",
    ]


@pytest.mark.parametrize(("wanted", "kinds", "are_submitted"), [
    (Wanted(), ["GradingJob", "BenchmarkJob", "BenchmarkComparison"], True),
    (Wanted("bj"), ["BenchmarkJob"], False),
    (Wanted("benchmarkcomparisons"), ["BenchmarkComparison"], False),
    (Wanted("job"), [], True),
    (Wanted(tags=("nightly",)), [], True),
    (Wanted(status="waiting"), ["GradingJob", "BenchmarkJob", "BenchmarkComparison"], False),
], ids=["all", "one kind", "its plural", "the coordinator's own", "tags", "a phase of objects"])
def test_what_is_listed(wanted: Wanted, kinds: list[str], are_submitted: bool) -> None:
    wanted.check()
    assert ([kind.kind for kind in wanted.kinds], wanted.are_submitted) == (kinds, are_submitted)


@pytest.mark.parametrize(("wanted", "said"), [
    (Wanted("pods"), "the kind must be one of gj"),
    (Wanted(status="happy"), "no job status 'happy'"),
    (Wanted("gj", tags=("nightly",)), "GradingJobs have no tags"),
], ids=["kind", "status", "tags"])
def test_what_no_job_could_pass_is_refused(wanted: Wanted, said: str) -> None:
    with pytest.raises(Permanent, match=said):
        wanted.check()


@pytest.mark.parametrize(("status", "phase", "has"), [
    ("complete", "Complete", True), ("completed", "Complete", True), ("failed", "Complete", False),
    ("pending", None, True), ("", "Running", True),
])
def test_an_objects_phase_is_its_status(status: str, phase: str | None, has: bool) -> None:
    assert Wanted(status=status).has(job(phase=phase)) is has


def test_every_phase_and_every_status_of_a_coordinator_can_be_asked_for() -> None:
    found = [*(("Progressing", reason) for reason in REASONS), *((type_, "R") for type_ in (*TERMINAL, "Suspended"))]
    at = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    phases = {job_phase((Condition.model_validate(condition(type_, "True", why) | at),)) for type_, why in found}
    assert {phase.lower() for phase in phases} | COORDINATORS == STATUSES
    assert COORDINATORS == STATUSES - OF_OBJECTS


async def test_a_name_alone_is_an_object_of_any_kind() -> None:
    cluster = FakeCluster()
    await cluster.create(typed(BENCHMARK_JOB, metadata("load", "course"), spec={}))
    found = await find_object(cluster, "load", "course")
    assert found is not None
    assert found.kind == BENCHMARK_JOB
    assert [await find_object(cluster, name, "course") for name in ("nobody", "No object's name")] == [None, None]


async def test_a_name_of_two_kinds_must_say_which() -> None:
    cluster = FakeCluster()
    for kind in (GRADING_JOB, BENCHMARK_JOB):
        await cluster.create(typed(kind, metadata("class", "course"), spec={}))
    with pytest.raises(Conflict, match="say which: gj/class or bj/class"):
        await find_object(cluster, "class", "course")


@pytest.mark.parametrize("kind", [GRADING_JOB, BENCHMARK_JOB], ids=lambda kind: kind.kind)
async def test_following_ends_with_the_job(kind: Kind) -> None:
    cluster = FakeCluster()
    await cluster.create(typed(kind, metadata("class", "course"), spec={}))
    following = asyncio.create_task(follow_job(cluster, "class", "course", kind))
    status = {"progressPercent": 100, "conditions": [condition("Complete", "True")]}
    await cluster.patch(kind, "class", "course", {"status": status}, subresource="status")
    assert await asyncio.wait_for(following, 10)


async def test_following_a_deleted_job_says_so() -> None:
    cluster = FakeCluster()
    await cluster.create(typed(GRADING_JOB, metadata("class", "course"), spec={}))
    following = asyncio.create_task(follow_job(cluster, "class", "course"))
    async with asyncio.timeout(5):
        while ("watch", "GradingJob") not in cluster.calls:  # noqa: ASYNC110 - the fake tells nobody of its calls
            await asyncio.sleep(0)
    await cluster.delete(GRADING_JOB, "class", "course")
    with pytest.raises(NotFound, match="class"):
        await asyncio.wait_for(following, 10)


async def test_missing_job_is_named() -> None:
    with pytest.raises(NotFound, match="no GradingJob class in namespace course"):
        await job_of(FakeCluster(), "class", "course")


async def test_submitter_account_is_made_once() -> None:
    cluster = FakeCluster()
    tokens = [await submitter_token(cluster, "course") for _ in range(2)]
    assert tokens == ["token-of-course-espalier-submitter-for-espalier-coordinator"] * 2
    assert (await cluster.get(SERVICE_ACCOUNT, SUBMITTER, "course"))["metadata"]["name"] == SUBMITTER


async def test_absent_operator_is_named() -> None:
    with pytest.raises(NotFound, match="install the chart"):
        async with artifacts_of(FakeCluster(), Where(None, "course")):
            raise AssertionError


async def test_incomplete_coordinator_map_is_named() -> None:
    cluster = FakeCluster()
    await cluster.create(config_map(metadata("espalier-coordinator", "espalier-system"), {"web": "https://x"}))
    assert (await cluster.get(CONFIG_MAP, "espalier-coordinator", "espalier-system"))["data"]
    with pytest.raises(Misconfigured, match=r"lacks name, ca\.crt"):
        async with artifacts_of(cluster, Where(None, "course")):
            raise AssertionError
