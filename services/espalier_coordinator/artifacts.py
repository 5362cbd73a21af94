"""Artifacts on the coordinator's volume: hashed while written, there as a whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import EspalierError, NotFound, Permanent, Retryable

MAX_ARTIFACT_BYTES = 2 * 1024**3
CHUNK_BYTES = 1024 * 1024
"""Read and written at once: one thread switch each."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class TooLarge(Permanent):
    """More than one artifact may have."""


class DiskFull(Retryable):
    """The volume takes no more; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put."""

    sha256: str
    size: int


class ArtifactFiles:
    """`<folder>/<namespace>/<sha256>`. Unfinished uploads lie in `<folder>/.incoming` and go at the next start."""

    def __init__(self, folder: Path, *, limit_bytes: int = MAX_ARTIFACT_BYTES) -> None:
        self._folder = folder
        self._incoming = folder / ".incoming"
        self._limit_bytes = limit_bytes

    def open(self) -> None:
        """Make the folders and drop what a former process left unfinished."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def path(self, namespace: str, sha256: str) -> Path:
        """Where these bytes lie. Raises `NotFound`, also for what cannot be a digest."""
        path = self._folder / _checked(namespace) / sha256
        if not _DIGEST.fullmatch(sha256) or not path.is_file():
            raise NotFound(f"no artifact {sha256} in namespace {namespace}: push it again", reason="NotFound")
        return path

    async def put(
        self, namespace: str, chunks: AsyncIterable[bytes], *, expected: str | None = None, announced: int | None = None
    ) -> Stored:
        """Store what `chunks` yield. Raises `TooLarge`, `DiskFull`, or `Permanent` where it is not the `expected`."""
        folder = self._folder / _checked(namespace)
        if expected is not None and not _DIGEST.fullmatch(expected):
            raise Permanent(f"{expected!r} is no sha256 of 64 lower-case hex digits", reason="InvalidDigest")
        if announced is not None and announced > self._limit_bytes:
            raise self._too_large()
        temporary = self._incoming / secrets.token_hex(16)
        try:
            stored = await self._receive(temporary, chunks)
            if expected not in (None, stored.sha256):
                raise Permanent(f"the content's sha256 is {stored.sha256}, not {expected}", reason="DigestMismatch")
            await asyncio.to_thread(_publish, temporary, folder / stored.sha256)
        except OSError as error:
            raise _translated(error) from error
        finally:
            await asyncio.to_thread(temporary.unlink, missing_ok=True)
        return stored

    async def read(self, path: Path) -> AsyncIterator[bytes]:
        """The bytes in chunks."""
        with await asyncio.to_thread(path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def _receive(self, path: Path, chunks: AsyncIterable[bytes]) -> Stored:
        digest, size = hashlib.sha256(), 0
        with await asyncio.to_thread(path.open, "xb", buffering=0) as file:

            def write(data: bytes) -> None:
                digest.update(data)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) or 0:]

            async for chunk in _gathered(chunks):
                size += len(chunk)
                if size > self._limit_bytes:
                    raise self._too_large()
                await asyncio.to_thread(write, chunk)
            await asyncio.to_thread(os.fsync, file.fileno())
        return Stored(digest.hexdigest(), size)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"an artifact may have at most {self._limit_bytes} bytes: split it", reason="TooLarge")


async def _gathered(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _publish(temporary: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    os.replace(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _checked(namespace: str) -> str:
    if not _NAMESPACE.fullmatch(namespace):
        raise Permanent(f"{namespace!r} is no namespace", reason="InvalidNamespace")
    return namespace


def _translated(error: OSError) -> EspalierError:
    if error.errno in _FULL:
        return DiskFull("the artifact volume is full: enlarge it, or remove files that no job needs any more",
                        reason="DiskFull")
    return Retryable(f"the artifact volume: {error.strerror}", reason="StoreUnavailable")
