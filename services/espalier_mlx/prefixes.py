"""The cache of shared prompt prefixes: least recently used goes first, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class PrefixCache(Generic[V]):
    """Values with their sizes, by key. A value larger than the whole bound is not kept."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[V, int]] = OrderedDict()
        self.nbytes = 0

    def get(self, key: str) -> V | None:
        """The value, which is now the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: str, value: V, nbytes: int) -> None:
        """Keep it, dropping the oldest until all fit."""
        if nbytes > self._max_bytes or key in self._entries:
            return
        self._entries[key] = (value, nbytes)
        self.nbytes += nbytes
        while self.nbytes > self._max_bytes:
            _, (_, dropped) = self._entries.popitem(last=False)
            self.nbytes -= dropped

    def __iter__(self) -> Iterator[str]:
        """The keys, least recently used first."""
        return iter(self._entries)
