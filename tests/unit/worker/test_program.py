"""Settings, executors by entry point, health."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured
from espalier_kit.execution import PlatformFault
from espalier_kit.settings import load
from espalier_worker.compatibility import translated
from espalier_worker.door import check
from espalier_worker.executors import GROUP, InstalledExecutors, named_points
from espalier_worker.health import Facts, problems
from espalier_worker.settings import WorkerSettings

ENVIRON = {
    "ESPALIER_WORKER_COORDINATOR": "127.0.0.1:50051", "ESPALIER_WORKER_COORDINATOR_WEB": "https://127.0.0.1:8081",
    "ESPALIER_WORKER_COORDINATOR_NAME": "espalier-coordinator.espalier-system.svc",
    "ESPALIER_WORKER_NAMESPACE": "course", "ESPALIER_WORKER_ID": "class-worker-0-abcde",
}


def test_defaults() -> None:
    settings = load(WorkerSettings, "worker", ENVIRON)
    assert (settings.capacity, settings.prefetch, settings.port, settings.job_uid) == (os.cpu_count(), 2, 0, "")
    assert (settings.transport, settings.pull_interval_s, settings.heartbeat_s) == ("session", 1.0, 0.0)
    assert settings.token_file == Path("/var/run/secrets/espalier/token")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ESPALIER_WORKER_CAPACITY": "0"}, "ESPALIER_WORKER_CAPACITY"),
        ({"ESPALIER_WORKER_COORDINATOR": "nowhere"}, "ESPALIER_WORKER_COORDINATOR"),
        ({"ESPALIER_WORKER_COORDINATOR_WEB": "ftp://plain"}, "ESPALIER_WORKER_COORDINATOR_WEB"),
        ({"ESPALIER_WORKER_SPEED": "1"}, "ESPALIER_WORKER_SPEED"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        load(WorkerSettings, "worker", ENVIRON | change)


@pytest.mark.parametrize(("change", "named"), [
    ({"COORDINATOR": "http://10.0.0.7:50051"}, "COORDINATOR=http://10.0.0.7:50051: without TLS"),
    ({"COORDINATOR_WEB": "http://elsewhere:8081"}, "COORDINATOR_WEB=http://elsewhere:8081: without TLS"),
    ({"CERT_FILE": "/c"}, "both ESPALIER_WORKER_CERT_FILE and ESPALIER_WORKER_KEY_FILE"),
])
def test_what_would_show_secrets_or_contradicts_itself_is_refused(change: dict[str, str], named: str) -> None:
    variables = ENVIRON | {f"ESPALIER_WORKER_{name}": value for name, value in change.items()}
    with pytest.raises(Misconfigured, match=named):
        check(load(WorkerSettings, "worker", variables))


@pytest.mark.parametrize("change", [
    {"COORDINATOR": "http://127.0.0.1:50051"}, {"COORDINATOR": "http://localhost:50051"},
    {"COORDINATOR": "http://[::1]:50051"}, {"COORDINATOR": "https://10.0.0.7:50051"},
    {"COORDINATOR": "http://10.0.0.7:50051", "INSECURE": "yes"},
])
def test_plain_is_for_this_machine_or_on_purpose(change: dict[str, str]) -> None:
    check(load(WorkerSettings, "worker", ENVIRON | {f"ESPALIER_WORKER_{name}": v for name, v in change.items()}))


def test_the_test_benchs_names_are_understood() -> None:
    told = translated({
        "COORDINATOR_ADDRESS": "http://localhost:50051", "WORKER_ID": "worker-1", "CAPACITY": "8", "TAGS": "gpu, x",
        "WORKER_API_KEY": "k", "HEARTBEAT_INTERVAL": "2", "TASK_PULL_INTERVAL": "0.5", "BIND_ADDRESS": "127.0.0.1:0",
        "RUST_LOG": "debug", "ESPALIER_WORKER_TAGS": "cpu",
    })
    found = load(WorkerSettings, "worker", told)
    assert (found.coordinator, found.id, found.capacity) == ("http://localhost:50051", "worker-1", 8)
    assert (found.api_key.get_secret_value(), found.heartbeat_s, found.host, found.port) == ("k", 2.0, "127.0.0.1", 0)
    assert (found.transport, found.pull_interval_s, found.log_level) == ("calls", 0.5, "DEBUG")
    assert found.tags == "", "our own name wins: the other is not even translated"
    assert "'k'" not in repr(found)
    assert translated({"CAPACITY": "8"}) == {}
    with pytest.raises(Misconfigured, match="ADDRESS:PORT"):
        translated({"COORDINATOR_ADDRESS": "a:1", "BIND_ADDRESS": "b"})


def test_without_a_name_a_worker_gets_one_of_its_own() -> None:
    variables = {"ESPALIER_WORKER_COORDINATOR": "127.0.0.1:1"}
    first, second = (load(WorkerSettings, "worker", variables).id for _ in range(2))
    assert len(first) == 36
    assert first != second


@pytest.mark.parametrize("text", ["benchmark", "benchmark=module", "=m:f", "benchmark=:f"])
def test_an_executor_that_names_no_function_is_a_sentence(text: str) -> None:
    with pytest.raises(Misconfigured, match="TYPE=MODULE:FUNCTION"):
        named_points(text)


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (["--version"], {}, 0, "0."),
        (["--check-settings"], ENVIRON, 0, "right"),
        (["--check-settings"], {}, 78, "ESPALIER_WORKER_COORDINATOR"),
        ([], ENVIRON | {"ESPALIER_WORKER_CA_FILE": "/nowhere/ca.crt"}, 78, "cannot read /nowhere/ca.crt"),
    ],
    ids=["version", "good", "missing", "no authority"],
)
def test_command_line(arguments: list[str], environ: dict[str, str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "espalier_worker", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_types_are_known_without_importing_anything() -> None:
    broken = EntryPoint("test.broken", "espalier_nowhere:run", GROUP)
    executors = InstalledExecutors({"test.broken": broken})
    assert executors.types == ("test.broken",)
    with pytest.raises(PlatformFault, match="espalier_nowhere") as caught:
        executors.find("test.broken")
    assert caught.value.reason == "ExecutorImportFailed"


def test_grading_executors_are_installed() -> None:
    assert {"grading.admit", "grading.report"} <= set(InstalledExecutors().types)


def facts(
    *, is_connected: bool = True, since_last_try_s: float = 0.0, oldest_stray_s: float = 0.0
) -> Facts:
    return Facts(
        is_connected=is_connected, is_draining=False, since_last_try_s=since_last_try_s, oldest_stray_s=oldest_stray_s
    )


@pytest.mark.parametrize(
    ("found", "lag_s", "word"),
    [
        (facts(), 0.0, ""),
        (facts(is_connected=True, since_last_try_s=9999), 0.0, ""),
        (facts(is_connected=False, since_last_try_s=10), 0.0, ""),
        (facts(is_connected=False, since_last_try_s=61), 0.0, "no session"),
        (facts(oldest_stray_s=31), 0.0, "ignores its end"),
        (facts(), 6.0, "late"),
    ],
    ids=["well", "long connected", "coordinator away, trying", "stuck", "stray", "loop lag"],
)
def test_health_is_progress(found: Facts, lag_s: float, word: str) -> None:
    said = problems(found, lag_s=lag_s)
    assert bool(said) == bool(word)
    assert word in "".join(said)
