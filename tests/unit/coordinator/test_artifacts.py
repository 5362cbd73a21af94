"""Artifacts are there as a whole or not at all."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from espalier_coordinator.artifacts import ArtifactFiles, DiskFull, TooLarge
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
