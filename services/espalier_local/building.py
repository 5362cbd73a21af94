"""Our images, built once per content with buildah and kept in the cache: `python -m espalier_local.building`.

Layers are shared: a base of Debian packages, dependencies, the project's code. Nothing asks a container registry unless
the user names a base that lies in one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured
from espalier_local import imagestore, machine, recipe
from espalier_local.files import write_atomically
from espalier_local.imagebuilder import ImageBuilder, bills, prune
from espalier_local.imagestore import Image, Store
from espalier_local.locks import held
from espalier_local.places import Places, places_from
from espalier_local.progress import Progress, Terminal

KEPT = 4
"""So many builds stay in the cache: those of other checkouts, and the one to go back to."""


@dataclass(frozen=True, slots=True)
class Built:
    """Images of one content."""

    key: str
    store: Store
    images: tuple[Image, ...]
    """In the order of `recipe.PROGRAMS`."""
    seconds: Mapping[str, float]
    """How long each program's image took when it was built."""
    bills: Path
    """The directory of the bills of materials."""

    def of(self, *programs: str) -> tuple[Image, ...]:
        """The images of these programs."""
        return tuple(image for image, name in zip(self.images, recipe.PROGRAMS, strict=True) if name in programs)


def ensure(places: Places, progress: Progress, *, base: str = "") -> Built:
    """The images of this checkout as it is now: from the cache, or built. `base`: the user's own base image.

    Raises `Misconfigured` when a tool is missing, `Permanent` with a tool's last words when a build fails.
    """
    home = places.cache / "images"
    with held(home / ".lock"):
        project, revision, keys = wanted(places, base)
        record = _record(home, keys.images)
        found = _read(home, keys.images)
        if found is None:
            _demand_tools()
            images, seconds = ImageBuilder(places, home, project, keys, revision, progress, base).run()
            found = Built(keys.images, Store(home / "layout"), images, seconds, bills(home, keys.images))
            record.parent.mkdir(exist_ok=True)
            write_atomically(record, json.dumps(_to_json(found, keys)))
            _forget_old(home)
        record.touch()
        return found


def wanted(places: Places, base: str = "") -> tuple[recipe.Project, str, recipe.Keys]:
    """What the checkout's images are made of now: its project, its revision and the digests of everything."""
    project = recipe.read_project((places.checkout / "pyproject.toml").read_text())
    revision = _revision(places.checkout, project)
    return project, revision, recipe.keys_of(project, places.checkout, base=base, revision=revision)


def _record(home: Path, key: str) -> Path:
    return home / "built" / f"{key}.json"


def _to_json(built: Built, keys: recipe.Keys) -> dict[str, Any]:
    images = [imagestore.to_json(image) for image in built.images]
    return {"keys": asdict(keys), "seconds": dict(built.seconds), "images": images}


def _read(home: Path, key: str) -> Built | None:
    path, store = _record(home, key), Store(home / "layout")
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    images = tuple(imagestore.from_json(data) for data in record["images"])
    if not all(store.has(image) for image in images):
        return None
    return Built(key, store, images, record["seconds"], bills(home, key))


def _forget_old(home: Path) -> None:
    records = sorted((home / "built").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in records[KEPT:]:
        old.unlink()
    prune(home, [recipe.Keys(**json.loads(record.read_text())["keys"]) for record in records[:KEPT]])


def _revision(checkout: Path, project: recipe.Project) -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(checkout), *words, "--", *recipe.followed(project)]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            return ""

    return recipe.revision_of(git("log", "-1", "--format=%H"), git("status", "--porcelain"))


def _demand_tools() -> None:
    if sentence := machine.builder_problem(machine.look()):
        raise Misconfigured(sentence)


def table(built: Built) -> Table:
    """Name, size as it travels, and seconds of the build."""
    shown = Table("image", "layers", "compressed", "on a node", "built in", box=None)
    for image, seconds in zip(built.images, built.seconds.values(), strict=True):
        sizes = [f"{size / 1e6:.0f} MB" for size in (image.packed_bytes, image.unpacked_bytes)]
        shown.add_row(image.name.rpartition("/")[2], str(len(image.blobs) - 1), *sizes, f"{seconds:.1f} s")
    return shown


def main() -> None:
    """Build what has changed, print a table and where everything lies."""
    parser = argparse.ArgumentParser(prog="python -m espalier_local.building", description=main.__doc__)
    parser.add_argument("--base", default="", help="a base image of your own, by digest: Debian 12 with python3.11")
    given = parser.parse_args()
    console = Console()
    try:
        built = ensure(places_from(os.environ), Terminal(), base=given.base)
    except EspalierError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise SystemExit(EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else 1) from error
    console.print(table(built))
    console.print(f"OCI layout: {built.store.directory}", soft_wrap=True, highlight=False)
    console.print(f"Bills of materials: {built.bills}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
