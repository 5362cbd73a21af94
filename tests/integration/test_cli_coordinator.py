"""The command line against a coordinator without a cluster: jobs, tasks, workers, templates."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from bench.coordinator_process import CoordinatorProcess
from espalier_cli.__main__ import app


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoordinatorProcess]:
    running = CoordinatorProcess(tmp_path_factory.mktemp("cli"))
    running.start()
    yield running
    running.close()


class Shell:
    """`espalier …` with the coordinator in its environment, as submitter; and a worker to do what it submits."""

    def __init__(self, process: CoordinatorProcess) -> None:
        self.environ = {
            "ESPALIER_CLI_COORDINATOR": f"127.0.0.1:{process.http_port}", "COLUMNS": "300", "NO_COLOR": "1",
            "ESPALIER_CLI_API_KEY_FILE": str(process.folder / "submitter.token"),
            "ESPALIER_CLI_CA_FILE": str(process.folder / "tls" / "ca.crt"),
        }
        self.worker = httpx.Client(
            base_url=f"https://127.0.0.1:{process.http_port}", verify=_context(process), trust_env=False,
            headers={"authorization": f"Bearer {(process.folder / 'worker.token').read_text()}"},
        )

    def __call__(self, *arguments: str, code: int = 0, **environ: str) -> str:
        done = CliRunner().invoke(app, list(arguments), env={**self.environ, **environ})
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def register(self, worker: str, type_: str, **fields: Any) -> None:
        self._post("/v1/workers", worker_id=worker, capacity=4, types=[type_], **fields)

    def work(self, worker: str, *, success: bool = True, **fields: Any) -> int:
        """Pull once and end what came."""
        tasks = self._post(f"/v1/workers/{worker}:pull", max_tasks=4, wait_s=10)["tasks"]
        for task in tasks:
            self._post(f"/v1/tasks/{task['lease']['task_id']}:report", worker_id=worker,
                       attempt=task["lease"]["attempt"], success=success, **fields)
        return len(tasks)

    def _post(self, path: str, **fields: Any) -> Any:
        answer = self.worker.post(path, json=fields)
        assert answer.is_success, answer.text
        return answer.json()


def _context(process: CoordinatorProcess) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(process.folder / "tls" / "ca.crt"))


@pytest.fixture
def espalier(process: CoordinatorProcess) -> Iterator[Shell]:
    shell = Shell(process)
    yield shell
    shell.worker.close()


def job_file(folder: Path, name: str, type_: str, count: int = 2, **fields: Any) -> str:
    path = folder / f"{name}.yaml"
    tasks = [{"key": str(n), "type": type_, "payload": {"n": n}, "retries": 0} for n in range(count)]
    path.write_text(json.dumps({"name": name, "tasks": tasks, **fields}))
    return str(path)


def test_a_job_from_submission_to_its_end(espalier: Shell, tmp_path: Path) -> None:
    assert "sums" in espalier("jobs", "submit", job_file(tmp_path, "sums", "sum", tags=["nightly"]))
    assert "running" in espalier("jobs", "list", "--tag", "nightly")
    assert espalier("jobs", "list", "--tag", "other").strip() == "no jobs"
    espalier.register("summer", "sum", tags=["cpu"])
    assert espalier.json("workers", "list", "--tag", "cpu")["workers"][0]["worker_id"] == "summer"
    assert espalier.work("summer", result={"sum": 3}) == 2
    assert "sums: complete" in espalier("jobs", "watch", "sums")
    told = espalier.json("jobs", "show", "sums")
    assert (told["state"], told["fraction"], told["counts"]["done"]) == ("complete", 1.0, 2)
    assert [t["value"] for t in espalier.json("tasks", "list", "sums")["tasks"]] == [{"sum": 3}] * 2
    assert "summer" in espalier("tasks", "show", "sums", "1")
    assert "already ended" in espalier("jobs", "cancel", "sums", code=1)


def test_a_job_that_is_suspended_resumed_and_cancelled(espalier: Shell, tmp_path: Path) -> None:
    espalier("jobs", "submit", job_file(tmp_path, "slow", "slow"))
    for command, state in (("suspend", "suspended"), ("resume", "running"), ("cancel", "cancelled")):
        espalier("jobs", command, "slow")
        assert espalier.json("jobs", "show", "slow")["state"] == state
    assert "slow: cancelled" in espalier("jobs", "watch", "slow", code=1)
    assert "slow" in espalier("jobs", "list", "--status", "cancelled", "-A")


def test_dead_letters_come_back(espalier: Shell, tmp_path: Path) -> None:
    espalier("jobs", "submit", job_file(tmp_path, "unlucky", "luck"))
    espalier.register("lucky", "luck")
    assert espalier.work("lucky", success=False, error="the dice fell badly", reason="BadLuck") == 2
    assert "unlucky: failed" in espalier("jobs", "watch", "unlucky", code=1)
    assert espalier("tasks", "dead", "unlucky").count("the dice fell badly") == 2
    assert "1 tasks run again" in espalier("tasks", "retry", "unlucky", "0")
    assert "1 tasks run again" in espalier("tasks", "retry", "unlucky")
    assert espalier.work("lucky") == 2
    assert espalier("jobs", "watch", "unlucky", "-o", "json").count('"state": "complete"') == 1
    assert "no dead letters" in espalier("tasks", "dead", "unlucky")


def test_a_template_is_kept_filled_in_and_forgotten(espalier: Shell, tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text("description: one model\nrequired: [model]\ndefaults: {rounds: '3'}\ntasks:\n"
                    "- {key: measure, type: bench, payload: {model: '{model}', rounds: '{rounds:json}'}}\n")
    assert espalier.json("jobs", "template", "put", "bench", str(path))["revision"] == 1
    assert "rounds=3" in espalier("jobs", "template", "list")
    assert "measure" in espalier("jobs", "template", "show", "bench")
    espalier("jobs", "template", "submit", "bench", "-p", "model=m", "--job", "from-template")
    espalier.register("bencher", "bench")
    assert espalier.work("bencher", result={"ok": True}) == 1
    assert "needs 'model'" in espalier("jobs", "template", "submit", "bench", code=1)
    assert "NAME=VALUE" in espalier("jobs", "template", "submit", "bench", "-p", "model", code=1)
    espalier("jobs", "template", "delete", "bench")
    assert "no templates" in espalier("jobs", "template", "list")


def test_a_worker_is_told_to_leave(espalier: Shell) -> None:
    espalier.register("leaver", "leave")
    assert "idle" in espalier("workers", "show", "leaver")
    espalier("workers", "drain", "leaver", "--reason", "upgrade")
    assert [w["status"] for w in espalier.json("workers", "list", "--status", "draining")["workers"]] == ["draining"]
    told = espalier.json("workers", "stats")
    assert told["active_workers"] >= 1
    assert told["health"]["overall_status"] in ("healthy", "degraded", "unhealthy")
    assert "total_capacity" in espalier("workers", "stats")


def test_capacity_is_held_back_and_given_free(espalier: Shell, tmp_path: Path) -> None:
    espalier("jobs", "submit", job_file(tmp_path, "urgent", "urgent"))
    assert "nothing is held back" in espalier("workers", "reservations")
    espalier("workers", "reserve", "tonight", "--slots", "3", "--minutes", "90", "--job", "urgent")
    espalier("workers", "reserve", "gpus", "--slots", "1", "--minutes", "5", "--tag", "gpu")
    told = {r["name"]: (r["slots"], r["tags"]) for r in espalier.json("workers", "reservations")["reservations"]}
    assert told == {"tonight": (3, []), "gpus": (1, ["gpu"])}
    assert "90 min" in espalier("workers", "reservations")
    for name in told:
        espalier("workers", "release", name)
    assert "no reservation 'gpus'" in espalier("workers", "release", "gpus", code=1)


@pytest.mark.parametrize(("arguments", "environ", "code", "words"), [
    (("jobs", "show", "nobody"), {}, 1, "no job 'nobody'"),
    (("tasks", "list", "nobody"), {}, 1, "no job 'nobody'"),
    (("workers", "show", "nobody"), {}, 1, "no worker 'nobody'"),
    (("workers", "drain", "nobody"), {}, 1, "no worker 'nobody'"),
    (("workers", "list", "--status", "happy"), {}, 1, "no worker status 'happy'"),
    (("jobs", "list", "-n", "other"), {}, 1, "may only act in namespace 'default'"),
    (("jobs", "list"), {"ESPALIER_CLI_API_KEY_FILE": ""}, 78, "--api-key-file"),
    (("jobs", "list"), {"ESPALIER_CLI_API_KEY_FILE": "/nowhere/key"}, 78, "/nowhere/key"),
    (("jobs", "list"), {"ESPALIER_CLI_COORDINATOR": "http://10.0.0.7:80"}, 78, "without TLS"),
    (("jobs", "list"), {"ESPALIER_CLI_COORDINATOR": "127.0.0.1:9"}, 1, "cannot be reached"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else None)
def test_what_is_wrong_is_one_sentence(
    espalier: Shell, arguments: tuple[str, ...], environ: dict[str, str], code: int, words: str
) -> None:
    assert words in espalier(*arguments, code=code, **environ)


def test_a_key_that_nobody_has_is_refused(espalier: Shell, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("esp_guessed")
    said = espalier("jobs", "list", code=1, ESPALIER_CLI_API_KEY_FILE=os.fspath(tmp_path / "key"))
    assert "nobody has this API key" in said
