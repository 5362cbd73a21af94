"""Folders become archives that depend on nothing but names and contents."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from espalier_cli.packing import digest_of, packed
from espalier_kit.errors import Permanent


def bundle(folder: Path, *, is_reversed: bool = False) -> Path:
    files = {"assignment.yaml": "name: x", "release/ps1.ipynb": "{}", "release/ps2.ipynb": "{}"}
    for name in sorted(files, reverse=is_reversed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(files[name])
    return folder


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    first, second = bundle(tmp_path / "a"), bundle(tmp_path / "b", is_reversed=True)
    os.utime(second / "assignment.yaml", (1, 1))
    (second / "assignment.yaml").chmod(0o600)
    with packed(first) as one, packed(second) as two:
        assert digest_of(one) == digest_of(two)


def test_names_are_relative_and_owners_are_nobody(tmp_path: Path) -> None:
    with packed(bundle(tmp_path / "a")) as archive, tarfile.open(archive) as opened:
        members = opened.getmembers()
    assert [m.name for m in members] == ["assignment.yaml", "release", "release/ps1.ipynb", "release/ps2.ipynb"]
    assert {(m.uid, m.gid, m.mtime) for m in members} == {(0, 0, 0)}


def test_a_file_goes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"tar")
    with packed(tmp_path / "x.tar") as content:
        assert content == tmp_path / "x.tar"


def _missing(folder: Path) -> Path:
    return folder / "nothing"


def _empty(folder: Path) -> Path:
    return folder


def _link(folder: Path) -> Path:
    (folder / "secret").symlink_to("/etc/hostname")
    return folder


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_missing, "does not exist"), (_empty, "is empty"), (_link, "neither a plain file nor a folder"),
        (_pipe, "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_pushed_is_named(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(Permanent, match=said), packed(make(tmp_path)):
        raise AssertionError("refused before")
