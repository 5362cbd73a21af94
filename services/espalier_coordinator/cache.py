"""Results that answer for equal tasks. No I/O: the engine keeps a copy in memory, the store the durable one."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from espalier_coordinator.messages import Input
from espalier_coordinator.model import NO_TALLIES, TaskRecord
from espalier_kit.execution import ModelEndpoint

MAX_BYTES = 64 * 1024 * 1024
"""All values together; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A success and what it counted."""

    key: str
    value: bytes
    tallies: Mapping[str, float] = field(default_factory=lambda: NO_TALLIES)
    created_at: float = 0.0
    """Seconds since 1970."""


def key_of(
    record: TaskRecord, namespace: str, version: str, inputs: Iterable[Input], endpoints: Iterable[ModelEndpoint]
) -> str:
    """Equal keys: the same executor would be asked the same, of the same models, for the same people.

    Its parts are the namespace (results, and the artifacts that they name, are its own), the type, the executors'
    version, the payload, how each dependency ended, and role and model of every endpoint of its job. Where an endpoint
    runs does not matter.
    """
    models = sorted({(e.role, e.model) for e in endpoints})
    parts = [
        namespace, record.type, version, hashlib.sha256(record.payload).hexdigest(), models,
        [[i.key, i.state.value, i.reason, hashlib.sha256(i.value).hexdigest()] for i in inputs],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class ResultCache:
    """The least recently used go first, by count and by bytes."""

    def __init__(self, max_entries: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Cached] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Cached]:
        return iter(self._entries.values())

    def get(self, key: str) -> Cached | None:
        """The result, which is now the most recently used."""
        if (found := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, cached: Cached) -> tuple[str, ...]:
        """Keep it, the first of a key; returns the keys that had to go."""
        if cached.key not in self._entries:
            self._entries[cached.key] = cached
            self._bytes += len(cached.value)
        gone = []
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            key, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest.value)
            gone.append(key)
        return tuple(gone)
