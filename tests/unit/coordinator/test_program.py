"""Starting: settings, certificates, the local folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from espalier_coordinator import local
from espalier_coordinator.__main__ import wait_for_tls
from espalier_coordinator.settings import CoordinatorSettings
from espalier_kit.clock import ManualClock, SystemClock
from espalier_kit.errors import Misconfigured
from espalier_kit.settings import load


def test_settings_from_the_environment() -> None:
    settings = load(CoordinatorSettings, "coordinator", {
        "ESPALIER_COORDINATOR_DATA": "/data", "ESPALIER_COORDINATOR_TLS_DIR": "/etc/espalier/tls",
        "ESPALIER_COORDINATOR_ADMINS": "a, b,", "ESPALIER_COORDINATOR_LEASE_S": "3", "PATH": "/bin",
    })
    assert (settings.admins, settings.lease_s, settings.grpc_port, settings.http_port) == (("a", "b"), 3.0, 50051, 8081)


@pytest.mark.parametrize("bad", [{"LEASE_S": "-1"}, {"GRPC_PORT": "many"}, {"COLOUR": "red"}])
def test_wrong_settings_are_named(bad: dict[str, str]) -> None:
    right = {"DATA": "/data", "TLS_DIR": "/tls"}
    with pytest.raises(Misconfigured, match=f"ESPALIER_COORDINATOR_{next(iter(bad))}"):
        load(CoordinatorSettings, "coordinator", {f"ESPALIER_COORDINATOR_{k}": v for k, v in {**right, **bad}.items()})


async def test_a_certificate_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(wait_for_tls(tmp_path, asyncio.Event(), clock))
    await clock.advance(30)
    assert not waiting.done()
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    await clock.advance(1)
    await waiting


async def test_a_certificate_that_never_comes_is_a_sentence(tmp_path: Path) -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(wait_for_tls(tmp_path, asyncio.Event(), clock))
    await clock.advance(61)
    with pytest.raises(Misconfigured, match="operator writes them"):
        await waiting


def test_a_local_folder_is_made_once_and_kept(tmp_path: Path) -> None:
    first = local.prepare(tmp_path, SystemClock())
    made = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert local.prepare(tmp_path, SystemClock()) == first
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == made
    assert all(p.stat().st_mode & 0o077 == 0 for p in made)
    assert sorted(local.read_tokens(tmp_path / "tokens.json").values()) == sorted(local.USERS.values())


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}'])
def test_a_tokens_file_that_is_none_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(Misconfigured, match="tokens file"):
        local.read_tokens(tmp_path / "tokens.json")
