"""Archives from strangers: nothing leaves its folder, nothing is followed."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from espalier_grading.archive import clean_path, read_tar, split_by_folder, write_tar
from espalier_kit.errors import Permanent


def test_a_class_is_split_by_its_top_folders() -> None:
    data = write_tar({"ann/a.ipynb": b"1", "ann/sub/b.csv": b"2", "ben/a.ipynb": b"3", "README": b"4"})
    parts = split_by_folder(data)
    assert {name: read_tar(part) for name, part in parts.items()} == {
        "ann": {"a.ipynb": b"1", "sub/b.csv": b"2"},
        "ben": {"a.ipynb": b"3"},
    }


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a\\b"])
def test_a_path_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(Permanent, match="leaves its folder"):
        clean_path(name)


@pytest.mark.parametrize("name", ["__MACOSX/a", "a/.ipynb_checkpoints/b.ipynb", "._a", "."])
def test_what_editors_leave_behind_is_ignored(name: str) -> None:
    assert clean_path(name) is None


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE], ids=["symlink", "link", "device"])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("ann/x")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(Permanent, match="link or a device"):
        read_tar(buffer.getvalue())


def _tar(*names: str) -> bytes:
    """Empty files, and folders where a name ends in a slash, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(info)
    return buffer.getvalue()


def test_a_student_with_an_empty_folder_is_not_lost() -> None:
    assert sorted(split_by_folder(_tar("ann/", "ann/a.ipynb", "ben/"))) == ["ann", "ben"]


def test_a_name_of_an_old_encoding_is_readable_and_its_own() -> None:
    parts = split_by_folder(_tar("J\udcfcrgen/\udcfc/a.ipynb", "J\udce4rgen/a.ipynb"))
    assert sorted(parts) == ["Järgen", "Jürgen"]
    assert list(read_tar(parts["Jürgen"])) == ["ü/a.ipynb"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        pytest.param(("ann/a.ipynb", "ben.ipynb"), "ben.ipynb outside of any folder", id="loose"),
        pytest.param(("ann/a.ipynb", "ann/a.ipynb"), "ann/a.ipynb is there twice", id="twice"),
        pytest.param(("ps1/ann/a.ipynb", "ps1/ben/a.ipynb"), "ps1, with a.ipynb in 2 folders of its own", id="wrapped"),
    ],
)
def test_a_class_in_which_somebody_would_be_lost_is_refused(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        split_by_folder(_tar(*names))


def test_one_student_may_keep_old_versions() -> None:
    assert list(split_by_folder(_tar("ann/a.ipynb", "ann/old/a.ipynb", "ann/older/a.ipynb"))) == ["ann"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(b"hello", "^not a readable tar, plain or compressed by gzip, bzip2 or xz$", id="text"),
        pytest.param(b"PK\x03\x04", "a zip file: unpack it and push the folder", id="zip"),
        pytest.param(gzip.compress(_tar("ann/a.ipynb"))[:40], "a damaged tar", id="cut"),
    ],
)
def test_what_is_no_tar_is_told_in_one_line(data: bytes, sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        split_by_folder(data)


def test_equal_files_give_equal_bytes() -> None:
    assert write_tar({"b": b"2", "a": b"1"}) == write_tar({"a": b"1", "b": b"2"})
