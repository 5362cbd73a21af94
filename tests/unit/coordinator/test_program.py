"""Starting: settings, certificates, the local folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from espalier_coordinator import local
from espalier_coordinator.__main__ import wait_for_tls
from espalier_coordinator.callers import read_callers
from espalier_coordinator.settings import CoordinatorSettings
from espalier_coordinator.turn import patiently
from espalier_kit.clock import ManualClock, SystemClock
from espalier_kit.errors import Misconfigured, Retryable
from espalier_kit.settings import load
from espalier_rpc.server import TlsFiles


def test_settings_from_the_environment() -> None:
    settings = load(CoordinatorSettings, "coordinator", {
        "ESPALIER_COORDINATOR_DATA": "/data", "ESPALIER_COORDINATOR_TLS_DIR": "/etc/espalier/tls",
        "ESPALIER_COORDINATOR_ADMINS": "a, b,", "ESPALIER_COORDINATOR_LEASE_S": "3", "PATH": "/bin",
    })
    assert (settings.admins, settings.lease_s, settings.grpc_port, settings.http_port) == (("a", "b"), 3.0, 50051, 8081)


@pytest.mark.parametrize("bad", [{"LEASE_S": "-1"}, {"GRPC_PORT": "many"}, {"COLOUR": "red"}, {"RESERVED_SHARE": "2"},
                                 {"ARTIFACT_UNUSED_S": "3600"}])
def test_wrong_settings_are_named(bad: dict[str, str]) -> None:
    right = {"DATA": "/data", "TLS_DIR": "/tls"}
    with pytest.raises(Misconfigured, match=f"ESPALIER_COORDINATOR_{next(iter(bad))}"):
        load(CoordinatorSettings, "coordinator", {f"ESPALIER_COORDINATOR_{k}": v for k, v in {**right, **bad}.items()})


async def test_a_certificate_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(wait_for_tls(TlsFiles.in_folder(tmp_path), asyncio.Event(), clock))
    await clock.advance(30)
    assert not waiting.done()
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    await clock.advance(1)
    await waiting


async def test_a_certificate_that_never_comes_is_a_sentence(tmp_path: Path) -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(wait_for_tls(TlsFiles.in_folder(tmp_path), asyncio.Event(), clock))
    await clock.advance(61)
    with pytest.raises(Misconfigured, match="operator writes them"):
        await waiting


class Database:
    """Answers from the `n`th time on."""

    def __init__(self, n: float) -> None:
        self.asked = 0
        self._n = n

    def ask(self) -> str:
        self.asked += 1
        if self.asked < self._n:
            raise Retryable("connection refused")
        return "here"


class JumpingClock(SystemClock):
    """Whoever sleeps has slept."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        self._elapsed_s += seconds


async def test_a_database_that_comes_late_is_waited_for() -> None:
    database = Database(5)
    assert await patiently(database.ask, asyncio.Event(), JumpingClock()) == "here"
    assert database.asked == 5


async def test_a_database_that_never_comes_is_a_sentence_after_a_minute() -> None:
    clock = JumpingClock()
    with pytest.raises(Retryable, match="refused; tried for 60 s: is ESPALIER_COORDINATOR_DATABASE right"):
        await patiently(Database(float("inf")).ask, asyncio.Event(), clock)
    assert 60 <= clock.monotonic() <= 66


async def test_who_waits_for_a_database_can_be_stopped() -> None:
    stop, database = asyncio.Event(), Database(float("inf"))
    stop.set()
    with pytest.raises(Retryable):
        await patiently(database.ask, stop, JumpingClock())
    assert database.asked == 1


@pytest.mark.parametrize("url", ["", "postgres://h/d", "postgresql://me:secret@a,b/d?connect_timeout=3"])
def test_the_databases_password_is_in_no_picture_of_the_settings(url: str) -> None:
    variables = {"DATA": "/data", "TLS_DIR": "/tls", "DATABASE": url}
    settings = load(CoordinatorSettings, "coordinator", {f"ESPALIER_COORDINATOR_{k}": v for k, v in variables.items()})
    assert settings.database.get_secret_value() == url
    assert "me:secret" not in repr(settings)


def test_a_local_folder_is_made_once_and_kept(tmp_path: Path) -> None:
    first = local.prepare(tmp_path, SystemClock())
    made = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert local.prepare(tmp_path, SystemClock()) == first
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == made
    assert all(p.stat().st_mode & 0o077 == 0 for p in made)
    callers = read_callers(tmp_path / "callers.yaml")
    for name, role in local.KEYS.items():
        key = (tmp_path / f"{name}.token").read_text()
        found = callers.by_key(key)
        assert found is not None
        assert (found.name, found.role) == (name, role)
        assert key not in (tmp_path / "callers.yaml").read_text()
