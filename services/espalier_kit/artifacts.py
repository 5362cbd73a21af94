"""Content-addressed bytes: the store's protocol, shared by the coordinator's own store and its HTTP client."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

SCHEME = "artifact://"


class ArtifactStore(Protocol):
    """Bytes by sha256 (64 lower-case hex digits). Putting the same bytes twice is one artifact."""

    async def put(self, data: bytes | AsyncIterable[bytes]) -> str:
        """Store and return the sha256. Raises `Retryable` (the store is away) or `Permanent` (too large)."""
        ...

    async def get(self, sha256: str) -> bytes:
        """All bytes, verified against the digest. Raises `NotFound`."""
        ...

    def stream(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes in chunks; the last chunk is only yielded once the digest was verified. Raises `NotFound`."""
        ...
