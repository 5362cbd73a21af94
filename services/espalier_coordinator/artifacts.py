"""Artifacts on the coordinator's volume: hashed while written, there as a whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator
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


class QuotaExceeded(DiskFull):
    """The namespace has all that it may have; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put."""

    sha256: str
    size: int


class ArtifactFiles:
    """`<folder>/<namespace>/<sha256>`. Unfinished uploads lie in `<folder>/.incoming` and go at the next start.

    A namespace may have `share` of the volume, so that one cannot fill it for all; 0: as much as there is.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = MAX_ARTIFACT_BYTES, share: float = 0.0) -> None:
        self._folder = folder
        self._incoming = folder / ".incoming"
        self._limit_bytes = limit_bytes
        self._share = share
        self.removed = 0
        """Files since the start, because nobody needed them any more."""
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()
        """Of what is there and how much: files come and go in threads."""

    def open(self) -> None:
        """Make the folders, drop what a former process left unfinished, count what is there."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        self._used = Counter()
        for file in self._files():
            self._used[Path(file.path).parent.name] += file.stat().st_size

    @property
    def used(self) -> Counter[str]:
        """Bytes by namespace."""
        with self._lock:
            return Counter(self._used)

    def path(self, namespace: str, sha256: str) -> Path:
        """Where these bytes lie; whoever asks uses them. Raises `NotFound`, also for what cannot be a digest."""
        path = self._folder / _checked(namespace) / sha256
        with self._lock:
            if not _DIGEST.fullmatch(sha256) or not path.is_file():
                raise NotFound(f"no artifact {sha256} in namespace {namespace}: push it again", reason="NotFound")
            os.utime(path)
        return path

    async def put(
        self, namespace: str, chunks: AsyncIterable[bytes], *, expected: str | None = None, announced: int | None = None
    ) -> Stored:
        """Store what `chunks` yield. Raises `TooLarge`, `DiskFull`, `QuotaExceeded`, or `Permanent` where it is not the
        `expected`.
        """
        folder = self._folder / _checked(namespace)
        if expected is not None and not _DIGEST.fullmatch(expected):
            raise Permanent(f"{expected!r} is no sha256 of 64 lower-case hex digits", reason="InvalidDigest")
        if announced is not None and announced > self._limit_bytes:
            raise self._too_large()
        is_there = expected is not None and (folder / expected).is_file()
        if not is_there:
            self._check_quota(namespace, announced or 0, self._most())
        temporary = self._incoming / secrets.token_hex(16)
        try:
            stored = await self._receive(temporary, chunks, namespace=None if is_there else namespace)
            if expected not in (None, stored.sha256):
                raise Permanent(f"the content's sha256 is {stored.sha256}, not {expected}", reason="DigestMismatch")
            await asyncio.to_thread(self._publish, temporary, namespace, stored)
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

    # ------------------------------------------------------------ what goes

    def digests(self) -> set[str]:
        """All there are, of whatever namespace."""
        return {file.name for file in self._files()}

    def unused_since(self, time: float) -> set[str]:
        """Those that nobody has put or read since, in any namespace; seconds since 1970."""
        used: set[str] = set()
        unused: set[str] = set()
        for file in self._files():
            (used if file.stat().st_mtime >= time else unused).add(file.name)
        return unused - used

    def pieces(self, sha256: str, *, largest: int, overlap: int) -> Iterator[bytes]:
        """The bytes in pieces, each with the end of the one before, unless they are more than `largest`; nothing where
        it has gone. Nobody counts as having read it.
        """
        for folder in self._folders():
            with contextlib.suppress(FileNotFoundError), open(Path(folder) / sha256, "rb") as file:
                end = b""
                while os.fstat(file.fileno()).st_size <= largest and (chunk := file.read(CHUNK_BYTES)):
                    piece = end + chunk
                    yield piece
                    end = piece[-overlap:]
                return

    def remove(self, digests: Collection[str], unused_since: float) -> tuple[int, int]:
        """Remove these where still nobody has used them since; returns how many files that were, and bytes."""
        count = size = 0
        for file in self._files():
            if file.name not in digests:
                continue
            with self._lock:
                found = os.stat(file.path)
                if found.st_mtime >= unused_since:
                    continue
                os.unlink(file.path)
                self._used[Path(file.path).parent.name] -= found.st_size
            count, size = count + 1, size + found.st_size
        self.removed += count
        return count, size

    def _files(self) -> Iterator[os.DirEntry[str]]:
        for folder in self._folders():
            with os.scandir(folder) as found:
                yield from (file for file in found if _DIGEST.fullmatch(file.name))

    def _folders(self) -> list[str]:
        with os.scandir(self._folder) as found:
            return [folder.path for folder in found if folder.is_dir() and folder.name != self._incoming.name]

    # ------------------------------------------------------------ what comes

    async def _receive(self, path: Path, chunks: AsyncIterable[bytes], *, namespace: str | None) -> Stored:
        """Into a file of its own; `namespace` is whose quota must have room for it."""
        digest, size, most = hashlib.sha256(), 0, self._most()
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
                if namespace is not None:
                    self._check_quota(namespace, size, most)
                await asyncio.to_thread(write, chunk)
            await asyncio.to_thread(os.fsync, file.fileno())
        return Stored(digest.hexdigest(), size)

    def _most(self) -> int | None:
        """Bytes that a namespace may have on the volume as large as it now is; None: as many as fit."""
        return int(self._share * shutil.disk_usage(self._folder).total) if self._share else None

    def _check_quota(self, namespace: str, size: int, most: int | None) -> None:
        used = self._used[namespace]
        if most is not None and used + size > most:
            raise QuotaExceeded(
                f"namespace {namespace} has {used} bytes of artifacts and may have {most}, {self._share:.0%} of the "
                "volume: delete jobs that nobody needs any more, or let an administrator enlarge the volume or the "
                "share", reason="QuotaExceeded",
            )

    def _publish(self, temporary: Path, namespace: str, stored: Stored) -> None:
        target = self._folder / namespace / stored.sha256
        with self._lock:
            is_new = not target.exists()
            if is_new:
                self._check_quota(namespace, stored.size, self._most())
            target.parent.mkdir(exist_ok=True)
            os.replace(temporary, target)
            self._used[namespace] += stored.size if is_new else 0
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

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


def _checked(namespace: str) -> str:
    if not _NAMESPACE.fullmatch(namespace):
        raise Permanent(f"{namespace!r} is no namespace", reason="InvalidNamespace")
    return namespace


def _translated(error: OSError) -> EspalierError:
    if error.errno in _FULL:
        return DiskFull("the artifact volume is full: enlarge it, or remove files that no job needs any more",
                        reason="DiskFull")
    return Retryable(f"the artifact volume: {error.strerror}", reason="StoreUnavailable")
