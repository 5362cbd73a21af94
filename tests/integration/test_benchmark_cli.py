"""`espalier benchmark` as a person types it, also killed in the middle."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from espalier_cli.__main__ import app
from tests.support.timed_server import TimedServer, completion, spread

FAST = spread(3, scale=0.3)


@dataclass
class Ended:
    code: int
    out: str
    err: str


async def espalier(*arguments: object) -> Ended:
    """In a thread: the command has an event loop of its own."""
    done = await asyncio.to_thread(
        CliRunner().invoke, app, ["benchmark", *map(str, arguments)], env={"COLUMNS": "200"}
    )
    return Ended(done.exit_code, done.stdout, done.stderr)


async def test_two_folders_are_measured_shown_and_compared(tmp_path: Path) -> None:
    fast, slow = TimedServer(FAST), TimedServer(spread(3, scale=0.9))
    job = {
        "kind": "BenchmarkJob", "metadata": {"name": "quick"},
        "spec": {
            "targets": [{"endpoint": {"url": "URL", "model": "timed"}, "maxTokens": 16}],
            "load": {"pattern": "constant", "rate": 40, "requests": 48}, "slo": {"e2eMs": 5000},
        },
    }  # fmt: skip
    async with fast.serving() as one, slow.serving() as other:
        for name, url in (("one", one), ("other", other)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(job).replace("URL", url))
        runs = [
            await espalier("run", tmp_path / f"{name}.yaml", "--out", tmp_path / name) for name in ("one", "other")
        ]
    for ended in runs:
        assert "48 of 48 answered" in ended.out, ended.err
        assert ended.code == (0 if ended.out.splitlines()[-2] == "Valid" else 3)
    assert (tmp_path / "one/report.html").read_text().startswith("<!doctype html>")
    shown = await espalier("report", tmp_path / "one")
    worse = await espalier("compare", tmp_path / "one", tmp_path / "other", "--metric", "e2e")
    same = await espalier("compare", tmp_path / "one", tmp_path / "one")
    assert "48 of 48 answered" in shown.out
    assert worse.code == 4, worse.err
    assert "Regressed: e2e" in worse.out
    assert (same.code, "has one target only" in same.err) == (78, True)


def questions(folder: Path, url: str, *more: object) -> tuple[object, ...]:
    return ("run", "--target", url, "--model", "timed", "--pack", "bfcl:simple", "--items", 30, "--out", folder, *more)


async def test_a_killed_run_goes_on_with_the_question_at_which_it_was_killed(tmp_path: Path) -> None:
    server = TimedServer(FAST, free=12)
    async with server.serving() as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "espalier_cli", "benchmark", *map(str, questions(tmp_path, url)),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await asyncio.wait_for(server.holds.wait(), 60)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        answered = _questions(server)[:8]  # of 11 answers up to four may have been on their way to the disk
        asked = len(server.whole_asked)
        server.go.set()
        ended = await espalier(*questions(tmp_path, url))
    assert ended.code == 0, ended.err
    assert [body for body in server.whole_asked[asked:] if body["messages"][0]["content"] in answered] == []
    assert json.loads((tmp_path / "report.json").read_text())["accuracy"][0]["items"] == 30


def _questions(server: TimedServer) -> list[str]:
    return [text for body in server.whole_asked if "hello" not in (text := body["messages"][0]["content"])]


async def test_equal_questions_are_not_asked_again_with_a_cache(tmp_path: Path) -> None:
    server = TimedServer(FAST, whole=lambda path, body: (200, completion("[x()]")))
    reports: list[dict[str, Any]] = []
    async with server.serving() as url:
        for name in ("first", "second"):
            ended = await espalier(*questions(tmp_path / name, url, "--cache", tmp_path / "cache"))
            assert ended.code == 0, ended.err
            reports.append(json.loads((tmp_path / name / "report.json").read_text()))
    assert len(server.whole_asked) == 30 + 2  # one hello for each admission
    assert [report["accuracy"][0]["items"] for report in reports] == [30, 30]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run",), "name one --target URL"),
        (("run", "--target", "http://127.0.0.1:9"), "--model NAME"),
        (("run", "--target", "http://127.0.0.1:9", "--model", "m"), "say what to do"),
        (("run", "--target", "http://127.0.0.1:9", "--model", "m", "--rate", 1), "say how long the run is"),
        (("report", "gj/x"), "neither a folder nor bj/NAME"),
    ],
)
def test_too_little_is_told_in_a_sentence(arguments: tuple[object, ...], says: str) -> None:
    done = CliRunner().invoke(app, ["benchmark", *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code in (1, 78)
    assert says in done.stderr


@pytest.mark.parametrize("sandbox", ["container", "gvisor"])
def test_what_needs_a_pod_is_not_run_in_something_weaker(tmp_path: Path, sandbox: str) -> None:
    endpoint = {"endpoint": {"url": "http://127.0.0.1:9", "model": "m"}}
    spec = {"targets": [endpoint], "accuracy": {"packs": [{"name": "humaneval"}]}, "execution": {"sandbox": sandbox}}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"kind": "BenchmarkJob", "metadata": {"name": "x"}, "spec": spec}))
    done = CliRunner().invoke(app, ["benchmark", "run", str(file)], env={"COLUMNS": "200"})
    assert done.exit_code in (1, 78)
    assert f"execution.sandbox {sandbox} needs a pod" in done.stderr
