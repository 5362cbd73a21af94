"""Which clusters exist and which loopback range each has."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import Misconfigured
from espalier_local.addresses import Cables, Range, cable_blocker, choose, port_blocker
from espalier_local.files import write_atomically
from espalier_local.hosts import Kind
from espalier_local.layout import Layout
from espalier_local.locks import held


@dataclass(frozen=True, slots=True)
class Record:
    """What is decided once in a cluster's life."""

    name: str
    address_range: Range
    kind: Kind = "process"

    @property
    def cables(self) -> Cables | None:
        """Its hosts' cables, if they have any."""
        return Cables(self.address_range.n) if self.kind == "container" else None

    @property
    def server(self) -> str:
        """The API server's address."""
        return self.cables.server if self.cables else self.address_range.control_plane


def read(layout: Layout) -> Record | None:
    """None if there is no such cluster."""
    with contextlib.suppress(FileNotFoundError):
        data = json.loads(layout.record.read_text())
        return Record(data["name"], Range(data["n"]), data.get("kind", "process"))
    return None


def claim(clusters: Path, name: str, kind: Kind = "process") -> Record:
    """The cluster's record, made now if there is none; raises `Misconfigured` when no range is free, or when the
    cluster has nodes of the other kind."""
    layout = Layout(clusters / name)
    with held(clusters / ".claims.lock"):
        if existing := read(layout):
            if existing.kind != kind:
                raise Misconfigured(
                    f"cluster {name} has {existing.kind} nodes: say --nodes {existing.kind},"
                    f" or take it down first: espalier local down --name {name}"
                )
            return existing
        others = (read(Layout(path)) for path in clusters.iterdir() if path.is_dir())
        taken = {other.address_range.n for other in others if other}
        record = Record(name, choose(name, taken, _blocker(kind)), kind)
        layout.root.mkdir(mode=0o700, exist_ok=True)
        write_atomically(layout.record, json.dumps({"name": name, "n": record.address_range.n, "kind": kind}))
        return record


def _blocker(kind: Kind) -> Callable[[Range], OSError | None]:
    if kind == "process":
        return port_blocker
    return lambda candidate: port_blocker(candidate) or cable_blocker(Cables(candidate.n))
