"""Reading container logs in CRI format: tail, since, timestamps, follow, limit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

POLL_S = 0.1
MESSAGE_LINES = 80
MESSAGE_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Wish:
    """What of a log is wanted."""

    tail: int | None = None
    since: datetime | None = None
    with_timestamps: bool = False
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One line (or part of one) of a CRI log."""

    time: str
    is_whole: bool
    text: bytes

    def shown(self, *, with_timestamps: bool) -> bytes:
        stamp = f"{self.time} ".encode() if with_timestamps else b""
        return stamp + self.text + (b"\n" if self.is_whole else b"")


def parse(line: bytes) -> Record | None:
    """`TIME STREAM TAG TEXT`; None for what is no such line."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3:
        return None
    return Record(parts[0].decode(errors="replace"), parts[2] != b"P", parts[3] if len(parts) == 4 else b"")


def select(records: Iterable[Record], wish: Wish) -> list[Record]:
    """The records that are wanted, oldest first."""
    since = wish.since.strftime("%Y-%m-%dT%H:%M:%S.%f") if wish.since else ""
    kept = (record for record in records if record.time >= since)
    return list(kept) if wish.tail is None else list(deque(kept, maxlen=wish.tail))


def limit(chunks: Iterable[bytes], limit_bytes: int | None) -> Iterator[bytes]:
    """Cut after `limit_bytes`."""
    left = limit_bytes
    for chunk in chunks:
        if left is None:
            yield chunk
            continue
        if left <= 0:
            return
        yield chunk[:left]
        left -= len(chunk)


def read(path: Path) -> Iterator[Record]:
    """The rotated part, then the current one."""
    for part in (path.with_name(path.name + ".1"), path):
        try:
            with part.open("rb") as file:
                yield from (record for line in file if (record := parse(line)) is not None)
        except FileNotFoundError:
            continue


def show(path: Path, wish: Wish) -> Iterator[bytes]:
    """The wanted part as it is sent."""
    chosen = select(read(path), wish)
    return limit((record.shown(with_timestamps=wish.with_timestamps) for record in chosen), wish.limit_bytes)


def tail_text(path: Path) -> str:
    """The last lines, for a termination message."""
    lines = b"".join(show(path, Wish(tail=MESSAGE_LINES)))
    return lines[-MESSAGE_BYTES:].decode(errors="replace")


async def follow(path: Path, wish: Wish, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What is there, then what comes, until the container has ended and everything was read. Survives rotation."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
    for chunk in show(path, wish):
        yield chunk
    async for record in _new_records(path, end, is_running):
        yield record.shown(with_timestamps=wish.with_timestamps)


async def _new_records(path: Path, position: int, is_running: Callable[[], bool]) -> AsyncIterator[Record]:
    file = path.open("rb")
    file.seek(position)
    try:
        while True:
            was_running = is_running()
            while (line := file.readline()).endswith(b"\n"):
                if (record := parse(line)) is not None:
                    yield record
            file.seek(-len(line), 1)
            if _is_rotated(path, file.fileno()):
                file.close()
                file = path.open("rb")
                continue
            if not was_running:
                return
            await asyncio.sleep(POLL_S)
    finally:
        file.close()


def _is_rotated(path: Path, descriptor: int) -> bool:
    import os

    try:
        return os.stat(path).st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


async def limit_async(chunks: AsyncIterator[bytes], limit_bytes: int | None) -> AsyncIterator[bytes]:
    """As `limit`, for a followed log."""
    left = limit_bytes
    async for chunk in chunks:
        if left is not None:
            if left <= 0:
                return
            chunk, left = chunk[:left], left - len(chunk)
        yield chunk
