"""Artifacts are there as a whole or not at all."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from espalier_coordinator.artifacts import ArtifactFiles, DiskFull, QuotaExceeded, TooLarge
from espalier_kit.digest import sha256
from espalier_kit.errors import NotFound, Permanent


@pytest.fixture
def files(tmp_path: Path) -> ArtifactFiles:
    opened = ArtifactFiles(tmp_path / "artifacts", limit_bytes=1_000_000)
    opened.open()
    return opened


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise ClientDisconnect


def left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "artifacts").rglob("*") if p.is_file())


@contextmanager
def a_disk_that_takes(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_stored_under_its_digest(files: ArtifactFiles, tmp_path: Path) -> None:
    stored = await files.put("ns", chunks(b"a" * 700, b"b"))
    data = b"a" * 700 + b"b"
    assert (stored.sha256, stored.size) == (sha256(data), 701)
    assert b"".join([c async for c in files.read(files.path("ns", stored.sha256))]) == data
    assert left(tmp_path) == [sha256(data)]


async def test_the_same_bytes_twice_are_one_artifact(files: ArtifactFiles, tmp_path: Path) -> None:
    assert await files.put("ns", chunks(b"x")) == await files.put("ns", chunks(b"x"), expected=sha256(b"x"))
    assert left(tmp_path) == [sha256(b"x")]


async def test_an_empty_artifact_is_one_too(files: ArtifactFiles) -> None:
    assert (await files.put("ns", chunks())).sha256 == sha256(b"")


async def test_other_content_than_announced_leaves_nothing(files: ArtifactFiles, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="not " + sha256(b"y")):
        await files.put("ns", chunks(b"x"), expected=sha256(b"y"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("announced", [None, 2_000_000])
async def test_too_much_is_refused_and_leaves_nothing(
    files: ArtifactFiles, tmp_path: Path, announced: int | None
) -> None:
    with pytest.raises(TooLarge, match="at most 1000000 bytes"):
        await files.put("ns", chunks(b"x" * 1_000_000, b"y"), announced=announced)
    assert left(tmp_path) == []


async def test_a_full_disk_is_said_and_leaves_nothing(files: ArtifactFiles, tmp_path: Path) -> None:
    with a_disk_that_takes(100_000), pytest.raises(DiskFull, match="full"):
        await files.put("ns", chunks(b"x" * 600_000))
    assert left(tmp_path) == []


async def test_a_client_that_goes_away_leaves_nothing(files: ArtifactFiles, tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnect):
        await files.put("ns", broken(b"half"))
    assert left(tmp_path) == []


def test_what_a_killed_process_left_unfinished_goes_at_the_next_start(tmp_path: Path) -> None:
    incoming = tmp_path / "artifacts" / ".incoming"
    incoming.mkdir(parents=True)
    (incoming / "half").write_bytes(b"half")
    ArtifactFiles(tmp_path / "artifacts").open()
    assert left(tmp_path) == []


@pytest.mark.parametrize("namespace", ["..", ".incoming", "a/b", "", "A", "-a"])
async def test_no_way_out_of_the_folder_by_namespace(files: ArtifactFiles, namespace: str) -> None:
    with pytest.raises(Permanent):
        await files.put(namespace, chunks(b"x"))
    with pytest.raises(Permanent):
        files.path(namespace, sha256(b"x"))


@pytest.mark.parametrize("digest", ["..", "../ns/x", "", "A" * 64, "0" * 64])
async def test_what_is_not_there_or_no_digest_is_not_found(files: ArtifactFiles, digest: str) -> None:
    with pytest.raises(NotFound):
        files.path("ns", digest)


async def test_namespaces_do_not_share(files: ArtifactFiles) -> None:
    stored = await files.put("a", chunks(b"x"))
    with pytest.raises(NotFound):
        files.path("b", stored.sha256)


def sharing(tmp_path: Path, quota_bytes: int) -> ArtifactFiles:
    """Each namespace may have about so much."""
    total = shutil.disk_usage(tmp_path).total
    opened = ArtifactFiles(tmp_path / "artifacts", share=(quota_bytes + 0.5) / total)
    opened.open()
    return opened


async def test_a_namespace_that_has_its_share_is_told_so_and_loses_nothing(tmp_path: Path) -> None:
    files = sharing(tmp_path, 1000)
    await files.put("full", chunks(b"a" * 900))
    said = "namespace full has 900 bytes of artifacts and may have 1000.*delete jobs that nobody needs any more"
    for announced in (101, None):
        with pytest.raises(QuotaExceeded, match=said):
            await files.put("full", chunks(b"b" * 101), announced=announced)
    assert left(tmp_path) == [sha256(b"a" * 900)]
    await files.put("full", chunks(b"b" * 100))
    await files.put("other", chunks(b"c" * 1000))
    assert files.used == {"full": 1000, "other": 1000}


async def test_what_is_there_already_needs_no_room(tmp_path: Path) -> None:
    files = sharing(tmp_path, 1000)
    data = b"a" * 900
    await files.put("ns", chunks(data))
    await files.put("ns", chunks(data), expected=sha256(data), announced=900)
    assert files.used == {"ns": 900}


async def test_several_at_once_get_no_more_than_one_after_the_other(tmp_path: Path) -> None:
    files = sharing(tmp_path, 1000)
    puts = [files.put("ns", chunks(bytes([n]) * 400)) for n in range(5)]
    ended = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(end, QuotaExceeded) for end in ended) == 3
    assert files.used == {"ns": 800}


async def test_a_new_process_counts_what_is_there(tmp_path: Path) -> None:
    await sharing(tmp_path, 1000).put("ns", chunks(b"a" * 900))
    again = sharing(tmp_path, 1000)
    assert again.used == {"ns": 900}
    with pytest.raises(QuotaExceeded):
        await again.put("ns", chunks(b"b" * 200))
