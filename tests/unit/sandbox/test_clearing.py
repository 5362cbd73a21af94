"""What a command left behind goes, however it was put there; a worker that hangs up is noticed."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from espalier_sandbox import watching
from espalier_sandbox.clearing import empty


def nested(folder: Path, depth: int) -> None:
    """Folders deeper than any path may be long."""
    with contextlib.chdir(folder):
        for _ in range(depth):
            os.mkdir("d" * 100)
            os.chdir("d" * 100)
        Path("file").write_bytes(b"x")


@pytest.mark.parametrize("depth", [1, 3000])
def test_nothing_is_left_however_deep_it_lies(tmp_path: Path, depth: int) -> None:
    nested(tmp_path, depth)
    with contextlib.chdir(tmp_path):
        empty(tmp_path)
        assert Path.cwd() == Path("/")
    assert list(tmp_path.iterdir()) == []


def test_files_of_every_kind_go_and_what_links_point_at_stays(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    (inside / "locked" / "in").mkdir(parents=True)
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "kept")
    (inside / "loop").symlink_to("loop")
    os.mkfifo(inside / "pipe")
    for number in range(3000):
        (inside / "locked" / f"{number}").touch()
    (inside / "locked").chmod(0)
    with contextlib.chdir(tmp_path):
        empty(inside)
    assert list(inside.iterdir()) == []
    assert (outside / "kept").read_bytes() == b"x"


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    empty(tmp_path / "none")


def test_a_worker_that_hangs_up_is_noticed_and_one_that_is_silent_is_not() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert not watching.has_hung_up(ours)
        assert watching.has_hung_up(ours)
