"""How programs end and what they log."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys

import pytest

from espalier_kit import logs
from espalier_kit.errors import EXIT_MISCONFIGURED, Misconfigured
from espalier_kit.lifecycle import run_program


async def _misconfigured(_stop: asyncio.Event) -> None:
    raise Misconfigured("ESPALIER_X_PORT: not a number")


async def _broken(_stop: asyncio.Event) -> None:
    raise OSError("disk on fire")


async def _until_stopped(stop: asyncio.Event) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stop.wait(), 5)


def test_sigterm_drains_and_exits_0() -> None:
    assert run_program(_until_stopped) == 0


def test_a_wrong_setting_is_one_sentence_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(_misconfigured) == EXIT_MISCONFIGURED
    assert capsys.readouterr().err == "error: ESPALIER_X_PORT: not a number\n"


def test_any_other_failure_exits_1() -> None:
    assert run_program(_broken) == 1


def test_a_log_line_is_json_with_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.configure()
        logging.getLogger("a.b").info("job accepted", extra={"uid": "7", "tasks": 3})
        line = json.loads(capsys.readouterr().err.splitlines()[-1])
    finally:
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    assert not sys.stderr.isatty()
    assert (line["event"], line["level"], line["logger"], line["uid"], line["tasks"]) == (
        "job accepted",
        "info",
        "a.b",
        "7",
        3,
    )
