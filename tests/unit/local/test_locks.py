"""Locks among programs and threads."""

from __future__ import annotations

import threading
from pathlib import Path

from espalier_local.locks import held, is_held


def test_a_lock_is_held_inside_and_free_outside(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    with held(path):
        assert is_held(path)
    assert not is_held(path)


def test_a_holder_may_delete_the_file_and_still_only_one_holds(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "lock", [0], [0]

    def work() -> None:
        for _ in range(50):
            with held(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                path.unlink()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
