"""Reports: rows, speed, and paths that stay in their folder."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from espalier_cli.report import Row, fetch, grades_table, index_of, rows_of, safe_path, speed_table
from espalier_kit.digest import sha256
from espalier_kit.errors import NotFound, Permanent

PERFORMANCE = {
    "models": {
        "code": {"tokensPerSecond": 31.44, "promptTokens": 10, "outputTokens": 90, "p50Seconds": 1, "p95Seconds": 2},
        "feedback": {"tokensPerSecond": 35.5, "promptTokens": 10, "outputTokens": 99, "p50Seconds": 1, "p95Seconds": 2},
    },
    "combinedTokensPerSecond": 61.2, "parallelSpeedup": 1.71, "parallelEfficiency": 0.93, "submissionsPerHour": 400.0,
}


class Store:
    def __init__(self, *contents: bytes) -> None:
        self._contents = {sha256(content): content for content in contents}

    async def put(self, data: bytes | AsyncIterable[bytes]) -> str:
        raise AssertionError

    async def get(self, sha256: str) -> bytes:
        return self._contents[sha256]

    def stream(self, sha256: str) -> AsyncIterator[bytes]:
        raise AssertionError


def shown(table: Table | None) -> str:
    assert table is not None
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "class", "namespace": "course"}, "status": status}


def test_rows_join_names_and_sum_tests() -> None:
    report = {
        "scale_points": 37.5,
        "submissions": [
            {
                "pseudonym": "s2", "state": "graded", "points": 30.25,
                "tests": [{"id": "a", "points": 2, "earned": 1.5}, {"id": "b", "points": 1, "earned": 0}],
            },
            {"pseudonym": "s1", "state": "notGradable", "points": None, "tests": [], "message": "no notebook"},
        ],
    }
    assert rows_of(report, {"s1": "ada", "s2": "bob"}) == (
        Row("ada", "-", None, 37.5, "notGradable", "no notebook"),
        Row("bob", "1.5/3", 30.25, 37.5, "graded", ""),
    )


def test_table_shows_points_of_the_scale() -> None:
    text = shown(grades_table([Row("bob", "1.5/3", 30.25, 37.5, "graded"), Row("[red]x", "-", None, 37.5, "failed")]))
    assert "30.25/37.5" in text
    assert "[red]x" in text


@pytest.mark.parametrize(("shared", "word"), [(True, "overlap"), (False, "speed-up")])
def test_speed_on_shared_hardware_is_called_overlap(shared: bool, word: str) -> None:
    text = shown(speed_table({**PERFORMANCE, "sharedHardware": shared}))
    for part in ("code judge", "31.4 tok/s", "61.2 tok/s", f"{word} ", "1.71", "93%", "400/h"):
        assert part in text
    assert ("simulated" in text) == shared


def test_no_speed_before_anything_was_measured() -> None:
    assert speed_table(None) is None
    assert "code judge" not in shown(speed_table({"submissionsPerHour": 3.0}))


async def test_index_is_read_from_the_result() -> None:
    index = json.dumps({"job": "class", "files": {"report.json": "d"}}).encode()
    found = await index_of(Store(index), job(resultUri=f"artifact://{sha256(index)}"))
    assert found == {"report.json": "d"}


async def test_no_report_yet_says_where_the_job_stands() -> None:
    with pytest.raises(NotFound, match="no report yet: Running, 3/9 submissions"):
        await index_of(Store(), job(phase="Running", submissions={"total": 9, "graded": 3}))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"files": 1}', b'{"files": {"a": 1}}'])
async def test_a_broken_index_is_named(content: bytes) -> None:
    with pytest.raises(Permanent, match="index"):
        await index_of(Store(content), job(resultUri=f"artifact://{sha256(content)}"))


async def test_files_are_written_for_their_owner_only(tmp_path: Path) -> None:
    await fetch(Store(b"page"), {"students/s1.html": sha256(b"page")}, tmp_path / "out")
    written = tmp_path / "out" / "students" / "s1.html"
    assert written.read_bytes() == b"page"
    assert written.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_paths_stay_in_their_folder(path: str) -> None:
    with pytest.raises(Permanent, match="outside"):
        safe_path(path)
