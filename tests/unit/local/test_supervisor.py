"""The supervisor's hands: whom it ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from espalier_local.layout import Layout
from espalier_local.processtable import is_same, start_time
from espalier_local.supervised import Phase, ProcessState, states_from_json, states_to_json
from espalier_local.supervisor import Supervisor


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """Of a process group of its own, as a shell's jobs are."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def looked_at(root: Path, state: ProcessState) -> ProcessState | None:
    """What becomes of a state that another supervisor left, once ours has looked."""
    layout = Layout(root)
    layout.wishes.mkdir()
    layout.states.write_text(states_to_json({state.name: state}))
    supervisor = Supervisor(layout)
    supervisor._adopt()
    supervisor._tick()
    return states_from_json(layout.states.read_text()).get(state.name)


def test_a_number_that_is_somebody_elses_since_the_machine_started_again_is_not_killed(
    leader: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    started = start_time(leader.pid)
    assert started is not None
    former = ProcessState("etcd", Phase.RUNNING, pid=leader.pid, started=started + 1000)
    assert looked_at(tmp_path, former) is None
    assert is_same(leader.pid, started)


def test_what_a_leader_that_ended_left_in_its_group_is_ended(tmp_path: Path) -> None:
    """It would hold its ports."""
    command = "sleep 60 >/dev/null & echo $!"
    with subprocess.Popen(["sh", "-c", command], start_new_session=True, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        left = int(shell.stdout.readline())
    assert os.getpgid(left) == shell.pid
    process = psutil.Process(left)
    assert looked_at(tmp_path, ProcessState("etcd", Phase.RUNNING, pid=shell.pid, started=1.0)) is None
    process.wait(10)
