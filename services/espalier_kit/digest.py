"""Digests: one way to hash bytes, values and identities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(data: bytes) -> str:
    """64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values, equal bytes."""
    return _CANONICAL.encode(value).encode()


def value_digest(value: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON."""
    return sha256(canonical_json(value))


def task_id(job_uid: str, key: str) -> str:
    """A task's identity: the same job and key give the same task, however often it is submitted."""
    return sha256(f"{job_uid}\0{key}".encode())[:32]
