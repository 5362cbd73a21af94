"""Reading container logs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from espalier_kit.clock import ManualClock
from espalier_kit.errors import Permanent
from espalier_node.kubelet import wish_of
from espalier_node.logs import Wish, follow, limit_async, parse, show, tail_text

LINES = [f"2026-01-01T00:00:0{i}.000000000Z stdout F line {i}" for i in range(4)]


def write(directory: Path, *lines: str, name: str = "log") -> Path:
    path = directory / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), b"line 0\nline 1\nline 2\nline 3\n"),
        (Wish(tail=1), b"line 3\n"),
        (Wish(tail=0), b""),
        (Wish(since=datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)), b"line 2\nline 3\n"),
        (Wish(limit_bytes=9), b"line 0\nli"),
        (Wish(tail=1, with_timestamps=True), b"2026-01-01T00:00:03.000000000Z line 3\n"),
    ],
    ids=["all", "tail", "none", "since", "limit", "timestamps"],
)
def test_what_is_shown(tmp_path: Path, wish: Wish, expected: bytes) -> None:
    write(tmp_path, *LINES[:2], name="log.1")
    assert b"".join(show(write(tmp_path, *LINES[2:]), wish)) == expected


def test_parts_are_joined_and_nonsense_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "nonsense", "t stdout P long ", "t stderr F end")
    assert b"".join(show(path, Wish())) == b"long end\n"
    assert parse(b"t stdout F\n") is not None


def test_the_tail_for_a_message_is_short(tmp_path: Path) -> None:
    path = write(tmp_path, *(f"t stdout F {'x' * 50} {i}" for i in range(200)))
    assert len(tail_text(path)) == 2048
    assert tail_text(path).endswith("199\n")


async def test_following_survives_rotation_and_ends_with_the_container(tmp_path: Path) -> None:
    path, is_running, grown = write(tmp_path, LINES[0]), True, asyncio.Event()
    seen: list[bytes] = []

    async def read() -> None:
        async for chunk in follow(path, Wish(tail=1), lambda: is_running):
            seen.append(chunk)
            grown.set()

    task = asyncio.create_task(read())

    async def until(count: int) -> None:
        async with asyncio.timeout(5):
            while len(seen) < count:
                grown.clear()
                await grown.wait()

    await until(1)
    with path.open("a") as file:
        file.write(LINES[1] + "\n" + LINES[2][:10])
        file.flush()
        await until(2)
        file.write(LINES[2][10:] + "\n")
    await until(3)
    path.rename(path.with_name("log.1"))
    write(tmp_path, LINES[3])
    await until(4)
    is_running = False
    await asyncio.wait_for(task, 5)
    assert seen == [b"line 0\n", b"line 1\n", b"line 2\n", b"line 3\n"]


async def test_a_followed_log_is_cut_at_its_limit(tmp_path: Path) -> None:
    chunks = limit_async(follow(write(tmp_path, *LINES), Wish(), lambda: False), 10)
    assert b"".join([chunk async for chunk in chunks]) == b"line 0\nlin"


def test_a_request_is_read() -> None:
    clock = ManualClock()
    wish = wish_of({"tailLines": "5", "sinceSeconds": "60", "timestamps": "true", "limitBytes": "7"}, clock)
    assert (wish.tail, wish.with_timestamps, wish.limit_bytes) == (5, True, 7)
    assert wish.since is not None
    assert (clock.now() - wish.since).total_seconds() == 60
    with pytest.raises(Permanent, match="log options"):
        wish_of({"tailLines": "many"}, clock)
