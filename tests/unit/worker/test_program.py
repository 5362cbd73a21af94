"""Settings, executors by entry point, health."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured
from espalier_kit.execution import PlatformFault
from espalier_kit.settings import load
from espalier_worker.executors import GROUP, InstalledExecutors
from espalier_worker.health import Facts, problems
from espalier_worker.settings import WorkerSettings

ENVIRON = {
    "ESPALIER_WORKER_COORDINATOR": "127.0.0.1:50051", "ESPALIER_WORKER_COORDINATOR_WEB": "https://127.0.0.1:8081",
    "ESPALIER_WORKER_COORDINATOR_NAME": "espalier-coordinator.espalier-system.svc",
    "ESPALIER_WORKER_NAMESPACE": "course", "ESPALIER_WORKER_ID": "class-worker-0-abcde",
}


def test_defaults() -> None:
    settings = load(WorkerSettings, "worker", ENVIRON)
    assert (settings.capacity, settings.prefetch, settings.port, settings.job_uid) == (4, 2, 8082, "")
    assert settings.token_file == Path("/var/run/secrets/espalier/token")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ESPALIER_WORKER_CAPACITY": "0"}, "ESPALIER_WORKER_CAPACITY"),
        ({"ESPALIER_WORKER_COORDINATOR": "nowhere"}, "ESPALIER_WORKER_COORDINATOR"),
        ({"ESPALIER_WORKER_COORDINATOR_WEB": "http://plain"}, "ESPALIER_WORKER_COORDINATOR_WEB"),
        ({"ESPALIER_WORKER_SPEED": "1"}, "ESPALIER_WORKER_SPEED"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        load(WorkerSettings, "worker", ENVIRON | change)


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
