"""The steps of an images' build, each skipped when what it makes is there: packages, wheels, base, targets, bills."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import Permanent
from espalier_local import debian, recipe
from espalier_local.cables import SEARCH_PATH
from espalier_local.imagestore import Image, Store
from espalier_local.places import Places
from espalier_local.progress import Progress

_BASE = "localhost/espalier-base"
_AT_ONCE = 2
"""Targets that are built side by side, once what they share is there."""


@dataclass(frozen=True, slots=True)
class ImageBuilder:
    """One build. `home` is the images' part of the cache, which nobody else changes meanwhile."""

    places: Places
    home: Path
    project: recipe.Project
    keys: recipe.Keys
    revision: str
    progress: Progress
    base: str
    """The user's own base image; empty for ours."""

    @property
    def store(self) -> Store:
        """Where finished images lie."""
        return Store(self.home / "layout")

    def run(self) -> tuple[tuple[Image, ...], Mapping[str, float]]:
        """The images in the order of `PROGRAMS`, and the seconds that each took."""
        builder = recipe.Builder(self.home, driver(self.home))
        base = self.base or self._made_base(builder)
        context = self._context()
        wheel = recipe.wheel_command(sys.executable, context / "source", context / "wheels", self.places.checkout)
        shutil.rmtree(context / "source", ignore_errors=True)
        with self.progress.step("the project's wheel"):
            run(wheel, "building the project's wheel")
        seconds: dict[str, float] = {}

        def build(program: str) -> None:
            began = time.monotonic()
            run(self._build_command(builder, program, context, base), f"building espalier-{program}")
            seconds[program] = round(time.monotonic() - began, 1)

        first, *others = recipe.PROGRAMS
        with self.progress.step(f"images of {', '.join(recipe.PROGRAMS)}") as advance:
            build(first)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for done, _ in enumerate(pool.map(build, others), start=2):
                    advance(done, len(recipe.PROGRAMS))
        with self.progress.step("writing images"):
            images = tuple(self._written(builder, program) for program in recipe.PROGRAMS)
            self._bills(images)
        return images, {program: seconds[program] for program in recipe.PROGRAMS}

    def _trees(self) -> Path:
        """Directory of the extracted Debian packages; whole or absent."""
        target = self.home / f"debian-{self.keys.base}"
        if not target.is_dir():
            with self.progress.step("Debian packages for images (once)"), _whole(target) as scratch:
                debian.make_base(scratch / "root")
                for program, packages in debian.ADDITIONS.items():
                    debian.make_addition(scratch / program, packages, base=scratch / "root")
        return target

    def _made_base(self, builder: recipe.Builder) -> str:
        name = f"{_BASE}:{self.keys.base}"
        if not succeeds(builder.command("inspect", "--type=image", name)):
            root = self._trees() / "root"
            container = run(builder.command("from", "scratch"), "beginning the base image").strip()
            run(builder.command("add", "--quiet", container, str(root), "/"), "filling the base image")
            commit = builder.command("commit", "--quiet", "--rm", "--format=oci", container, name)
            run(commit, "committing the base image")
        return name

    def _context(self) -> Path:
        """What the Dockerfile reads, apart from the project's wheel."""
        target = self.home / f"context-{self.keys.dependencies}"
        if target.is_dir():
            return target
        trees = self._trees()
        with self.progress.step("Python wheels for images (once)"), _whole(target) as scratch:
            images, constraints = self.places.checkout / "images", self.places.checkout / "constraints.txt"
            for file in (*(images / name for name in recipe.SCRIPTS), constraints):
                shutil.copy(file, scratch)
            (scratch / "requirements").mkdir()
            for stage, wanted in self.project.requirements.items():
                (scratch / "requirements" / f"{stage}.txt").write_text("\n".join(wanted) + "\n")
            for stage, wanted in recipe.DATA.items():
                (scratch / "requirements" / f"{stage}-data.txt").write_text("\n".join(wanted) + "\n")
            for program in debian.ADDITIONS:
                shutil.copytree(trees / program, scratch / "debian" / program, symlinks=True)
            every = {name for names in self.project.requirements.values() for name in names}
            wheels = sorted(every | set(self.project.build_requirements))
            command = recipe.download_command(sys.executable, scratch / "wheels", wheels, constraints)
            run(command, "fetching Python wheels")
            data = [name for names in recipe.DATA.values() for name in names]
            command = recipe.download_command(sys.executable, scratch / "wheels", data, constraints, is_whole=False)
            run(command, "fetching the packs' wheels")
        return target

    def _tag(self, program: str) -> str:
        return recipe.built_name(program, self.keys.images)

    def _build_command(self, builder: recipe.Builder, program: str, context: Path, base: str) -> list[str]:
        arguments = {
            "DEPENDENCIES": self.keys.dependencies, "SOURCE": self.keys.source, "VERSION": self.project.version,
        }  # fmt: skip
        return builder.build(
            program, self._tag(program), dockerfile=self.places.checkout / "images" / "Dockerfile", context=context,
            base=base, arguments=arguments,
            labels=recipe.labels_of(program, version=self.project.version, revision=self.revision),
        )  # fmt: skip

    def _written(self, builder: recipe.Builder, program: str) -> Image:
        """Exported plain, then packed by the store: the builder would pack every layer again each time."""
        with tempfile.TemporaryDirectory(dir=self.home, prefix=".export.") as scratch:
            export = builder.command("push", "--quiet", "--disable-compression", self._tag(program), f"dir:{scratch}")
            run(export, f"writing espalier-{program}")
            return self.store.adopt(
                Path(scratch), reference=recipe.reference(program, self.keys.images),
                name=recipe.image_name(program, self.project.version),
            )  # fmt: skip

    def _bills(self, images: Sequence[Image]) -> None:
        target = bills(self.home, self.keys.images)
        target.mkdir(parents=True, exist_ok=True)
        for program, image in zip(recipe.PROGRAMS, images, strict=True):
            name = f"espalier-{program}.cdx.json"
            (target / name).write_bytes(file_of(self.store, image, f"usr/share/sbom/{name}"))


def bills(home: Path, key: str) -> Path:
    """The directory of a build's bills of materials."""
    return home / "bills" / key


def prune(home: Path, kept: Sequence[recipe.Keys]) -> None:
    """Remove what no kept build is made of: images, blobs, wheels, packages, and what failed builds left."""
    keys = {key.images for key in kept}
    builder = recipe.Builder(home, driver(home))
    succeeds(builder.command("rm", "--all"))
    listed = run(builder.command("images", "--format={{.Name}}:{{.Tag}}"), "listing images").split()
    wanted = {f"{_BASE}:{key.base}" for key in kept}
    unwanted = [
        name for name in listed
        if name.startswith("localhost/espalier-") and name not in wanted and name.rpartition(":")[2] not in keys
    ]  # fmt: skip
    if unwanted:
        succeeds(builder.command("rmi", *unwanted))
    succeeds(builder.command("rmi", "--prune"))
    Store(home / "layout").keep_only({recipe.reference(program, key) for program in recipe.PROGRAMS for key in keys})
    _keep(home, "debian-*", {f"debian-{key.base}" for key in kept})
    _keep(home, "context-*", {f"context-{key.dependencies}" for key in kept})
    _keep(home / "bills", "*", keys)


def driver(home: Path) -> str:
    """Overlay, where the file system of the cache carries it; vfs copies the root per layer."""
    return "overlay" if succeeds(recipe.Builder(home).command("info")) else "vfs"


def file_of(store: Store, image: Image, path: str) -> bytes:
    """A file's content in the topmost layer that has it. Raises `Permanent` if none has."""
    for digest in reversed(image.blobs[1:]):
        with tarfile.open(store.blob(digest)) as layer:
            for name in (path, f"./{path}"):
                if name in layer.getnames() and (handle := layer.extractfile(name)):
                    return handle.read()
    raise Permanent(f"image {image.name} has no {path}", reason="BuildFailed")


def succeeds(command: Sequence[str]) -> bool:
    """Run it; whether it ended with 0."""
    return subprocess.run(command, capture_output=True, check=False, env=_environment()).returncode == 0


def run(command: Sequence[str], doing: str) -> str:
    """What it printed. Raises `Permanent` with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-600:]
        raise Permanent(f"{doing} failed: {words}", reason="BuildFailed")
    return done.stdout


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A scratch directory that takes the target's name when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _keep(directory: Path, pattern: str, names: Collection[str]) -> None:
    for path in directory.glob(pattern):
        if path.name not in names:
            shutil.rmtree(path)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": SEARCH_PATH}
