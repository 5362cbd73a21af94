"""Names, ends, lines and tables of jobs; following one to its end."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from rich.console import Console

from espalier_cli.connection import SUBMITTER, artifacts_of, job_of, submitter_token
from espalier_cli.jobs import columns_table, ended_as, ending, follow_job, jobs_table, status_line
from espalier_cli.options import Where, job_name
from espalier_kit.errors import Misconfigured, NotFound, Permanent
from espalier_kube.cluster import BENCHMARK_JOB, CONFIG_MAP, GRADING_JOB, SERVICE_ACCOUNT, Kind
from espalier_kube.fake import FakeCluster
from espalier_kube.objects import config_map, metadata, typed


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
        ((condition("Accepted", "False", "BundleRejected"),), "BundleRejected"),
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


def test_table_has_a_dash_where_nothing_is_known() -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(jobs_table((job(phase="Complete", scores={"mean": 21.3333}), job())))
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["course", "class", "Complete", "-", "-", "21.33", "-", "-"]
    assert lines[2].split() == ["course", "class", "-", "-", "-", "-", "-", "-"]


def test_a_benchmark_has_the_columns_of_kubectl_get() -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    made = typed(BENCHMARK_JOB, metadata("load", "course"), spec={})
    made["status"] = {"phase": "Complete", "headline": {"ttftP50Ms": 48.25}, "validity": {"verdict": "Valid"}}
    console.print(columns_table(BENCHMARK_JOB, made))
    head, row = console.export_text().splitlines()
    assert head.split()[:3] == ["namespace", "name", "phase"]
    assert row.split() == ["course", "load", "Complete", "-", "48.25", "-", "-", "Valid", "-"]


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
