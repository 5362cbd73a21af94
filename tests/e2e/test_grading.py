"""Life stories of one GradingJob on the whole platform: apply, grade, pause, stop, delete, bad input."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from espalier_kit.errors import Permanent
from espalier_kube.cluster import GRADING_JOB, JOB, MODEL_SERVER, POD
from tests.support import classroom
from tests.support.jobs import grading_job
from tests.support.waiting import condition, has, until, until_gone

pytestmark = pytest.mark.timeout(900)

SECONDS = 240


async def test_a_class_is_graded_and_every_submission_has_one_row(platform, namespace) -> None:
    job = await platform.submit(namespace, "class", students=classroom.good_class(4))
    done = await platform.until(job, has("Complete"), timeout_s=SECONDS, what="Complete")
    status = done["status"]
    assert status["phase"] == "Complete"
    assert status["submissions"]["total"] == 4
    assert status["submissions"]["graded"] == 4
    assert status["progressPercent"] == 100
    assert status["performance"]["sharedHardware"] is True
    rows = await platform.report_rows(job)
    assert sorted(row["name"] for row in rows) == [f"student-{n:03d}" for n in range(4)]
    assert all(row["tests"] == "2.0/2" for row in rows)
    await until_gone(platform.cluster, MODEL_SERVER, namespace, timeout_s=60)


async def test_a_broken_notebook_is_not_gradable_and_stops_nobody(platform, namespace) -> None:
    students = {**classroom.good_class(2), "broken/squares.ipynb": b"this is no notebook"}
    job = await platform.submit(namespace, "broken", students=students)
    done = await platform.until(job, has("Complete"), timeout_s=SECONDS, what="Complete")
    assert done["status"]["submissions"]["notGradable"] == 1
    assert done["status"]["submissions"]["graded"] == 2
    (row,) = [row for row in await platform.report_rows(job) if row["name"] == "broken"]
    assert row["state"] == "notGradable"
    assert "not a Jupyter notebook" in json.dumps(row)


async def test_a_rubric_that_does_not_add_up_is_refused_before_any_model_is_asked(
    platform, namespace, tmp_path
) -> None:
    """By the command, which ends as the job does."""
    bundle = classroom.laid_out(classroom.bundle(total=5), tmp_path / "bundle")
    students = classroom.laid_out(classroom.good_class(1), tmp_path / "students")
    template = tmp_path / "job.yaml"
    template.write_text(yaml.safe_dump(grading_job("sums", namespace, assignment="", submissions="")))
    command = [
        str(Path(sys.executable).with_name("espalier")), "grade", "sums", "--watch", f"--bundle={bundle}",
        f"--submissions={students}", f"--template={template}", f"--namespace={namespace}",
        f"--kubeconfig={platform.local.kubeconfig}",
    ]  # fmt: skip
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    failed = await platform.cluster.get(GRADING_JOB, "sums", namespace)
    assert condition(failed, "Accepted")["reason"] == "BundleRejected"
    message = condition(failed, "Accepted")["message"]
    assert "5" in message
    assert "4" in message
    assert failed["status"]["phase"] == "Failed"
    assert not failed["status"].get("performance", {}).get("models")


async def test_suspend_takes_the_pods_away_and_resume_finishes_the_class(platform, namespace) -> None:
    slow = classroom.submissions(
        {f"s{n}": classroom.notebook(classroom.SLOW_CODE.format(seconds=2), f"because {n}") for n in range(4)}
    )
    job = await platform.submit(namespace, "paused", students=slow)
    await platform.until(
        job, lambda o: o.get("status", {}).get("tasks", {}).get("done", 0) >= 2, timeout_s=SECONDS, what="progress"
    )
    await platform.set_run_policy(job, suspend=True)
    await platform.until(job, has("Suspended", "True", "SuspendedByUser"), timeout_s=60, what="Suspended")
    await until_gone(platform.cluster, POD, namespace, labels="app.kubernetes.io/component=worker", timeout_s=90)
    await platform.set_run_policy(job, suspend=False)
    done = await platform.until(job, has("Complete"), timeout_s=SECONDS, what="Complete")
    assert done["status"]["submissions"]["graded"] == 4
    assert len(await platform.report_rows(job)) == 4


async def test_cancel_keeps_what_is_done_and_cannot_be_taken_back(platform, namespace) -> None:
    slow = classroom.submissions(
        {f"s{n}": classroom.notebook(classroom.SLOW_CODE.format(seconds=3), f"because {n}") for n in range(8)}
    )
    job = await platform.submit(namespace, "stopped", students=slow)
    await platform.until(
        job,
        lambda o: o.get("status", {}).get("submissions", {}).get("graded", 0) >= 1,
        timeout_s=SECONDS,
        what="a grade",
    )
    await platform.set_run_policy(job, cancel=True)
    ended = await platform.until(job, has("Cancelled", "True", "CancelledByUser"), timeout_s=60, what="Cancelled")
    assert ended["status"]["phase"] == "Cancelled"
    assert 1 <= ended["status"]["submissions"]["graded"] <= 8
    await until_gone(platform.cluster, MODEL_SERVER, namespace, timeout_s=60)
    with pytest.raises(Permanent, match="cannot be taken back"):
        await platform.set_run_policy(job, cancel=False)


async def test_delete_mid_run_leaves_nothing(platform, namespace) -> None:
    slow = classroom.submissions(
        {f"s{n}": classroom.notebook(classroom.SLOW_CODE.format(seconds=5), f"because {n}") for n in range(4)}
    )
    job = await platform.submit(namespace, "deleted", students=slow)
    await platform.until(
        job,
        lambda o: o.get("status", {}).get("tasks", {}).get("running", 0) >= 1,
        timeout_s=SECONDS,
        what="a running task",
    )
    await platform.cluster.delete(GRADING_JOB, "deleted", namespace)
    for kind in (GRADING_JOB, JOB, MODEL_SERVER, POD):
        await until_gone(platform.cluster, kind, namespace, timeout_s=90)
    assert await platform.is_forgotten(job)


async def test_a_timeout_costs_retries_and_ends_as_a_platform_fault(platform, namespace) -> None:
    slow = classroom.submissions({"slow": classroom.notebook(classroom.SLOW_CODE.format(seconds=30), "because")})
    job = await platform.submit(
        namespace,
        "patience",
        students={**slow, **classroom.good_class(1)},
        runPolicy={"retries": 1, "taskTimeoutSeconds": 12},
        execution={"kernelTimeoutSeconds": 600},
    )
    done = await platform.until(job, has("Complete"), timeout_s=SECONDS, what="Complete")
    assert done["status"]["submissions"]["failed"] == 1
    assert done["status"]["submissions"]["graded"] == 1
    (row,) = [row for row in await platform.report_rows(job) if row["name"] == "slow"]
    assert row["state"] == "failed"
    assert row["points"] is None
    tasks = await platform.tasks(job)
    (execute,) = [task for task in tasks if task["key"].startswith("execute/") and task["state"] == "failed"]
    assert execute["attempts"] == 2


async def test_a_job_whose_artifact_is_missing_says_what_to_run(platform, namespace) -> None:
    absent = "artifact://" + "0" * 64
    job = grading_job("absent", namespace, assignment=absent, submissions=absent)
    await platform.cluster.create(job)
    failed = await until(
        platform.cluster,
        GRADING_JOB,
        namespace,
        "absent",
        has("Accepted", "False", "SourceNotFound"),
        timeout_s=SECONDS,
        what="SourceNotFound",
    )
    assert "espalier push" in condition(failed, "Accepted")["message"]
