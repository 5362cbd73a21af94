"""Archives from strangers: nothing leaves its folder, nothing is followed."""

from __future__ import annotations

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


def test_equal_files_give_equal_bytes() -> None:
    assert write_tar({"b": b"2", "a": b"1"}) == write_tar({"a": b"1", "b": b"2"})
