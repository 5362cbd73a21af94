"""Where things lie: the cache outside the checkout, and the checkout's own directories."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import Misconfigured

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Places:
    """`assets` is the user's own directory of binaries (`ESPALIER_ASSETS`), if given; `path` is where go may be."""

    cache: Path
    checkout: Path
    assets: Path | None = None
    path: str = ""

    @property
    def clusters(self) -> Path:
        """One directory per cluster."""
        return self.cache / "clusters"

    @property
    def tools(self) -> Path:
        """The Go modules that the binaries are built from."""
        return self.checkout / "tools"

    @property
    def charts(self) -> Path:
        """The Helm charts."""
        return self.checkout / "charts"


def places_from(environ: Mapping[str, str]) -> Places:
    """Read `ESPALIER_ASSETS`, `XDG_CACHE_HOME`, `HOME` and `PATH`; raises `Misconfigured` outside a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "tools").is_dir():
        raise Misconfigured(
            "espalier local needs the repository's tools/ and charts/; clone it and install it with pip install -e"
        )
    home = Path(environ.get("HOME") or Path.home())
    base = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    assets = environ.get("ESPALIER_ASSETS")
    return Places(
        cache=base / "espalier", checkout=checkout, assets=Path(assets).resolve() if assets else None,
        path=environ.get("PATH", ""),
    )  # fmt: skip


def default_name(checkout: Path) -> str:
    """A name of its own for each checkout, so that clusters of two checkouts live side by side."""
    slug = re.sub(r"[^a-z0-9]+", "-", checkout.name.lower()).strip("-")[:20] or "espalier"
    return f"{slug}-{hashlib.sha256(str(checkout).encode()).hexdigest()[:6]}"


def checked_name(name: str) -> str:
    """The name itself; raises `Misconfigured` when it cannot be a directory and a label."""
    if not _NAME.fullmatch(name):
        raise Misconfigured(f"cluster name {name!r}: 1 to 40 lower-case letters, digits and dashes, no dash at an end")
    return name
