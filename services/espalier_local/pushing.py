"""`make push`: this checkout's images to a registry, or into files that Docker and Podman load."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console

from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured
from espalier_local import building, imagebuilder, recipe
from espalier_local.places import Places, places_from
from espalier_local.progress import Terminal

ARCHIVE = "docker-archive:"
_REGISTRY = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)*")


def destination(target: str, program: str, version: str) -> str:
    """Where an image goes, in buildah's words.

    `target` is HOST/PATH of a registry, or `docker-archive:DIRECTORY` for files that `docker load` and `podman load`
    read. Raises `Misconfigured`.
    """
    name, directory = recipe.image_name(program, version), target.removeprefix(ARCHIVE)
    if target.startswith(ARCHIVE) and directory:
        return f"{ARCHIVE}{archive(directory, program)}:{name}"
    if not _REGISTRY.fullmatch(target.rstrip("/")):
        raise Misconfigured(f"{target!r} is no place for images: give HOST/PATH of a registry, or {ARCHIVE}DIRECTORY")
    return f"docker://{target.rstrip('/')}{name.removeprefix(recipe.REGISTRY)}"


def archive(directory: str, program: str) -> Path:
    """An image's file."""
    return Path(directory) / f"espalier-{program}.tar"


def plan(places: Places, target: str, *, base: str = "") -> tuple[list[str], ...]:
    """A command for each image of the checkout as it is now. Raises `Misconfigured`."""
    project, _, keys = building.wanted(places, base)
    home = places.cache / "images"
    builder = recipe.Builder(home, imagebuilder.driver(home))
    return tuple(
        builder.command("push", recipe.built_name(program, keys.images), destination(target, program, project.version))
        for program in recipe.PROGRAMS
    )


def push(places: Places, target: str, *, base: str = "") -> Iterator[str]:
    """Build what has changed, then push; tells each destination. Raises `Misconfigured`, `Permanent`."""
    commands = plan(places, target, base=base)
    building.ensure(places, Terminal(), base=base)
    if target.startswith(ARCHIVE):
        _make_room(target.removeprefix(ARCHIVE))
    for command in commands:
        imagebuilder.run(command, f"pushing to {command[-1]}")
        yield command[-1]


def _make_room(directory: str) -> None:
    """The builder writes no archive over another."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for program in recipe.PROGRAMS:
        archive(directory, program).unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m espalier_local.pushing", description=__doc__)
    parser.add_argument("target", help=f"HOST/PATH of a registry, or {ARCHIVE}DIRECTORY")
    parser.add_argument("--base", default="", help="the base image that they were built on, if it is not ours")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, build and push nothing")
    given = parser.parse_args(arguments)
    places, console = places_from(os.environ), Console(soft_wrap=True, highlight=False, markup=False)
    try:
        if given.dry_run:
            told: Iterable[str] = map(shlex.join, plan(places, given.target, base=given.base))
        else:
            told = (f"pushed {where}" for where in push(places, given.target, base=given.base))
        for line in told:
            console.print(line)
    except EspalierError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        raise SystemExit(EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else 1) from error


if __name__ == "__main__":
    main()
