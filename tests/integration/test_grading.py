"""The main job on real input, through the real sandbox: nbgrader's course, judges by script."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator

import pytest

from bench.model_server import ScriptedServer, serving
from espalier_api.tasks import ReportValue
from espalier_grading import course
from espalier_kit.execution import TaskState
from tests.support.grading import LentContext, MemoryArtifacts, Run, endpoint, settings


@pytest.fixture
async def judges() -> AsyncIterator[dict[str, tuple[ScriptedServer, str]]]:
    """Both judges by role, each with its address."""
    code, feedback = ScriptedServer("qwen"), ScriptedServer("gpt-oss")
    async with serving(code) as code_url, serving(feedback) as feedback_url:
        yield {"code": (code, code_url), "feedback": (feedback, feedback_url)}


async def test_the_course_gets_its_known_results(judges: dict[str, tuple[ScriptedServer, str]]) -> None:
    artifacts = MemoryArtifacts()
    run = Run(LentContext(artifacts, tuple(endpoint(role, url) for role, (_, url) in judges.items())))
    outcome = await run.grade(settings(await artifacts.put(course.bundle()), await artifacts.put(course.submissions())))

    assert outcome.state is TaskState.DONE, outcome
    rows = run.by_student()
    assert {name: sum(t["earned"] for t in row["tests"]) for name, row in rows.items()} == course.TESTS
    assert rows["blank"]["points"] == 0
    assert rows["blank"]["state"] == "graded"
    assert rows["hacker"]["points"] == 37.5
    assert 0 < rows["bitdiddle"]["points"] < rows["hacker"]["points"]
    report = ReportValue.model_validate(outcome.value)
    assert (report.submissions.total, report.submissions.graded) == (3, 3)
    assert report.scores is not None
    assert sum(report.scores.histogram) == 3
    assert report.code is not None
    assert report.feedback is not None
    assert report.code.output_tokens > 0
    assert report.parallel_efficiency is not None
    assert run.tallies["submissions"] == run.tallies["graded"] == 3


async def test_names_stay_in_the_restricted_files(judges: dict[str, tuple[ScriptedServer, str]]) -> None:
    artifacts = MemoryArtifacts()
    run = Run(LentContext(artifacts, tuple(endpoint(role, url) for role, (_, url) in judges.items())))
    await run.grade(settings(await artifacts.put(course.bundle()), await artifacts.put(course.submissions())))

    report = run.outcomes["report"].value
    assert report is not None
    files = json.loads(artifacts.kept[report["index"]])["files"]
    for name in files:
        text = run.file(name).decode()
        assert ("hacker" in text) == name.startswith("restricted/"), name
    for server, _ in judges.values():
        assert all("hacker" not in json.dumps(request) for request in server.requests)
    rows = list(csv.DictReader(io.StringIO(run.file("restricted/grades.csv").decode("utf-8-sig"))))
    assert {row["student"] for row in rows} == {"bitdiddle", "hacker", "blank"}
