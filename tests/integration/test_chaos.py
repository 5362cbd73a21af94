"""A short chaos on both databases at once: `make chaos` is the long one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.chaos import chaos
from tests.support.postgres import running_server

EVENTS = 15


async def test_every_task_has_exactly_one_result_whatever_is_killed_stopped_or_cut(tmp_path: Path) -> None:
    with running_server() as server:
        reports = await asyncio.gather(
            chaos(tmp_path / "sqlite", events=EVENTS, seed=11),
            chaos(tmp_path / "postgres", events=EVENTS, seed=12, database=server.new_database()),
        )
    for report in reports:
        assert sum(report.events.values()) == EVENTS
        assert report.tasks > 40
        assert report.starts["worker"] + report.starts["coordinator"] > 3, "some were killed"
