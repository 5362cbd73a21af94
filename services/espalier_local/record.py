"""Which clusters exist and which loopback range each has."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from espalier_local.addresses import Range, choose, port_blocker
from espalier_local.files import write_atomically
from espalier_local.layout import Layout
from espalier_local.locks import held


@dataclass(frozen=True, slots=True)
class Record:
    """What is decided once in a cluster's life."""

    name: str
    address_range: Range


def read(layout: Layout) -> Record | None:
    """None if there is no such cluster."""
    with contextlib.suppress(FileNotFoundError):
        data = json.loads(layout.record.read_text())
        return Record(data["name"], Range(data["n"]))
    return None


def claim(clusters: Path, name: str) -> Record:
    """The cluster's record, made now if there is none; raises `Misconfigured` when no range is free."""
    layout = Layout(clusters / name)
    with held(clusters / ".claims.lock"):
        if existing := read(layout):
            return existing
        others = (read(Layout(path)) for path in clusters.iterdir() if path.is_dir())
        record = Record(name, choose(name, {other.address_range.n for other in others if other}, port_blocker))
        layout.root.mkdir(mode=0o700, exist_ok=True)
        write_atomically(layout.record, json.dumps({"name": name, "n": record.address_range.n}))
        return record
