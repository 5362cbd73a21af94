"""Our images, built once per content with buildah and kept in the cache: `python -m espalier_local.building`.

Layers are shared: a base of Debian packages, dependencies, the project's code. Nothing asks a container registry unless
the user names a base that lies in one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured, Permanent
from espalier_local import debian, imagestore, recipe
from espalier_local.cables import SEARCH_PATH
from espalier_local.files import write_atomically
from espalier_local.imagestore import Image, Store
from espalier_local.locks import held
from espalier_local.places import Places, places_from
from espalier_local.progress import Progress, Terminal

TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "dpkg-deb": "dpkg"}
"""Program → Debian's package."""
_KEPT = 4
"""So many builds stay in the cache: those of other checkouts, and the one to go back to."""


@dataclass(frozen=True, slots=True)
class Built:
    """Images of one content."""

    key: str
    store: Store
    images: tuple[Image, ...]
    seconds: Mapping[str, float]
    """How long each took when it was built."""
    bills: Path
    """The directory of the bills of materials."""


def ensure(places: Places, progress: Progress, *, base: str = "") -> Built:
    """The images of this checkout as it is now: from the cache, or built. `base`: the user's own base image.

    Raises `Misconfigured` when a tool is missing, `Permanent` with a tool's last words when a build fails.
    """
    home = places.cache / "images"
    project = recipe.read_project((places.checkout / "pyproject.toml").read_text())
    with held(home / ".lock"):
        revision = _revision(places.checkout, project)
        keys = recipe.keys_of(project, places.checkout, base=base, revision=revision)
        found = _read(home, keys.images)
        if found is None:
            _demand_tools()
            found = _Building(places, home, project, keys, revision, progress).run(base)
            _prune(home)
        else:
            (home / "built" / f"{keys.images}.json").touch()
        return found


@dataclass(frozen=True, slots=True)
class _Building:
    places: Places
    home: Path
    project: recipe.Project
    keys: recipe.Keys
    revision: str
    progress: Progress

    def run(self, base: str) -> Built:
        """All of it, then the record by which the next call finds it."""
        builder = recipe.Builder(self.home, _driver(self.home))
        ours = base or f"localhost/espalier-base:{self.keys.base}"
        if not base:
            self._base(builder, ours)
        context = self._context()
        with self.progress.step("the project's wheel"):
            shutil.rmtree(context / "source", ignore_errors=True)
            _run(
                recipe.wheel_command(sys.executable, context / "source", context / "wheels", self.places.checkout),
                "building the project's wheel",
            )
        store, images, seconds = Store(self.home / "layout"), [], {}
        for program in recipe.PROGRAMS:
            with self.progress.step(f"image espalier-{program}"):
                began = time.monotonic()
                images.append(self._image(builder, program, context, ours, store))
                seconds[program] = round(time.monotonic() - began, 1)
        self._bills(store, images)
        record = {"seconds": seconds, "images": [imagestore.to_json(image) for image in images]}
        directory = self.home / "built"
        directory.mkdir(exist_ok=True)
        write_atomically(directory / f"{self.keys.images}.json", json.dumps(record))
        return Built(self.keys.images, store, tuple(images), seconds, self.home / "bills" / self.keys.images)

    def _trees(self) -> Path:
        """Directory of the extracted Debian packages; whole or absent."""
        target = self.home / f"debian-{self.keys.base}"
        if not target.is_dir():
            with self.progress.step("Debian packages for images (once)"), _beside(target) as scratch:
                debian.make_base(scratch / "root")
                for program, packages in debian.ADDITIONS.items():
                    debian.make_addition(scratch / program, packages, base=scratch / "root")
        return target

    def _base(self, builder: recipe.Builder, name: str) -> None:
        if _succeeds(builder.command("inspect", "--type=image", name)):
            return
        container = _run(builder.command("from", "scratch"), "beginning the base image").strip()
        try:
            _run(builder.command("add", "--quiet", container, f"{self._trees() / 'root'}", "/"), "filling the base")
            _run(builder.command("commit", "--quiet", "--format=oci", container, name), "committing the base")
        finally:
            _run(builder.command("rm", container), "removing the base's working container")

    def _context(self) -> Path:
        """What the Dockerfile reads, apart from the project's wheel."""
        target = self.home / f"context-{self.keys.dependencies}"
        if target.is_dir():
            return target
        with self.progress.step("Python wheels for images (once)"), _beside(target) as scratch:
            images, constraints = self.places.checkout / "images", self.places.checkout / "constraints.txt"
            for file in (*(images / name for name in recipe.SCRIPTS), constraints):
                shutil.copy(file, scratch)
            (scratch / "requirements").mkdir()
            for stage, wanted in self.project.requirements.items():
                (scratch / "requirements" / f"{stage}.txt").write_text("\n".join(wanted) + "\n")
            for program in debian.ADDITIONS:
                shutil.copytree(self._trees() / program, scratch / "debian" / program, symlinks=True)
            wanted_by_any = {name for names in self.project.requirements.values() for name in names}
            every = sorted(wanted_by_any | set(self.project.build_requirements))
            command = recipe.download_command(sys.executable, scratch / "wheels", every, constraints)
            _run(command, "fetching Python wheels")
        return target

    def _image(self, builder: recipe.Builder, program: str, context: Path, base: str, store: Store) -> Image:
        tag = f"localhost/espalier-{program}:{self.keys.images}"
        arguments = {
            "DEPENDENCIES": self.keys.dependencies, "SOURCE": self.keys.source, "VERSION": self.project.version,
        }  # fmt: skip
        labels = recipe.labels_of(program, version=self.project.version, revision=self.revision)
        dockerfile = self.places.checkout / "images" / "Dockerfile"
        command = builder.build(
            program, tag, dockerfile=dockerfile, context=context, base=base, arguments=arguments, labels=labels
        )
        _run(command, f"building espalier-{program}")
        reference = f"{program}-{self.keys.images}"
        _run(builder.command("push", "--quiet", tag, f"oci:{store.directory}:{reference}"), "writing the image")
        return store.find(reference, recipe.image_name(program, self.project.version))

    def _bills(self, store: Store, images: Sequence[Image]) -> None:
        target = self.home / "bills" / self.keys.images
        target.mkdir(parents=True, exist_ok=True)
        for program, image in zip(recipe.PROGRAMS, images, strict=True):
            name = f"espalier-{program}.cdx.json"
            (target / name).write_bytes(_file_of(store, image, f"usr/share/sbom/{name}"))


def _file_of(store: Store, image: Image, path: str) -> bytes:
    """A file's content in the topmost layer that has it."""
    for digest in reversed(image.blobs[1:]):
        with tarfile.open(store.blob(digest)) as layer:
            for name in (path, f"./{path}"):
                if name in layer.getnames():
                    handle = layer.extractfile(name)
                    assert handle is not None
                    return handle.read()
    raise Permanent(f"image {image.name} has no {path}", reason="BuildFailed")


class _beside:  # noqa: N801
    """A scratch directory that takes the target's name when all went well."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._scratch = Path()

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(dir=self._target.parent, prefix=f".{self._target.name}."))
        return self._scratch

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._scratch.chmod(0o755)
            self._scratch.rename(self._target)
        else:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _read(home: Path, key: str) -> Built | None:
    path, store = home / "built" / f"{key}.json", Store(home / "layout")
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    images = tuple(imagestore.from_json(data) for data in record["images"])
    if not all(store.has(image) for image in images):
        return None
    return Built(key, store, images, record["seconds"], home / "bills" / key)


def _prune(home: Path) -> None:
    """Keep the newest builds only."""
    records = sorted((home / "built").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for record in records[_KEPT:]:
        builder = recipe.Builder(home, _driver(home))
        tags = [f"localhost/espalier-{program}:{record.stem}" for program in recipe.PROGRAMS]
        _succeeds(builder.command("rmi", *tags))
        shutil.rmtree(home / "bills" / record.stem, ignore_errors=True)
        record.unlink()
    kept = [record.stem for record in records[:_KEPT]]
    Store(home / "layout").keep_only({f"{program}-{key}" for program in recipe.PROGRAMS for key in kept})


def _driver(home: Path) -> str:
    """Overlay, where the file system of the cache carries it; vfs copies the root per layer."""
    return "overlay" if _succeeds(recipe.Builder(home).command("info")) else "vfs"


def _revision(checkout: Path, project: recipe.Project) -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(checkout), *words, "--", *recipe.followed(project)]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            return ""

    return recipe.revision_of(git("log", "-1", "--format=%H"), git("status", "--porcelain"))


def _demand_tools() -> None:
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=SEARCH_PATH)})
    if missing:
        listed = " ".join(missing)
        raise Misconfigured(f"images cannot be built: {listed} must be installed (on Debian: apt install {listed})")
    if os.geteuid() != 0:
        raise Misconfigured("images cannot be built: the builder needs root; use sudo")


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, env=_environment()).returncode == 0


def _run(command: Sequence[str], doing: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-600:]
        raise Permanent(f"{doing} failed: {words}", reason="BuildFailed")
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": SEARCH_PATH}


def table(built: Built) -> Table:
    """Name, size as it travels, and seconds of the build."""
    shown = Table("image", "compressed", "built in", box=None)
    for image, seconds in zip(built.images, built.seconds.values(), strict=True):
        shown.add_row(image.name, f"{image.packed_bytes / 1e6:.0f} MB", f"{seconds:.1f} s")
    return shown


def main() -> None:
    """Build what has changed, print a table and where everything lies."""
    parser = argparse.ArgumentParser(prog="python -m espalier_local.building", description=main.__doc__)
    parser.add_argument("--base", default="", help="a base image of your own, by digest: Debian 12 with python3.11")
    given = parser.parse_args()
    try:
        built = ensure(places_from(os.environ), Terminal(), base=given.base)
    except EspalierError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else 1) from error
    console = Console()
    console.print(table(built))
    console.print(f"OCI layout {built.store.directory}, bills of materials {built.bills}", soft_wrap=True)


if __name__ == "__main__":
    main()
