"""The supervisor's decisions: from a wish and a state to the next step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from espalier_local.supervised import (
    BACKOFF_FIRST_S,
    BACKOFF_LAST_S,
    STEADY_S,
    Phase,
    ProcessSpec,
    ProcessState,
    Step,
    Wish,
    after_exit,
    decide,
    spec_from_json,
    spec_to_json,
    states_from_json,
    states_to_json,
    while_stopping,
)

NOW = 1000.0
SPEC = ProcessSpec(name="etcd", argv=("etcd", "--flag"), order=0, stop_s=5.0)
RUNNING = ProcessState("etcd", Phase.RUNNING, pid=7, started=900.0, since=900.0)
GONE = ProcessState("etcd")


@pytest.mark.parametrize(
    ("wish", "state", "step"),
    [
        pytest.param(Wish.RUN, GONE, Step.START, id="absent is started"),
        pytest.param(Wish.RUN, replace(GONE, not_before=NOW + 1), Step.NONE, id="a back-off is waited for"),
        pytest.param(Wish.RUN, RUNNING, Step.NONE, id="running stays"),
        pytest.param(Wish.PAUSE, RUNNING, Step.PAUSE, id="cut"),
        pytest.param(Wish.PAUSE, replace(RUNNING, phase=Phase.PAUSED), Step.NONE, id="cut already"),
        pytest.param(Wish.RUN, replace(RUNNING, phase=Phase.PAUSED), Step.RESUME, id="mend"),
        pytest.param(Wish.STOP, RUNNING, Step.TERMINATE, id="stop"),
        pytest.param(Wish.STOP, replace(RUNNING, phase=Phase.PAUSED), Step.TERMINATE, id="stop what is cut"),
        pytest.param(Wish.STOP, replace(RUNNING, phase=Phase.STOPPING, since=NOW - 4), Step.NONE, id="in its time"),
        pytest.param(Wish.STOP, replace(RUNNING, phase=Phase.STOPPING, since=NOW - 6), Step.KILL, id="overdue"),
        pytest.param(Wish.STOP, GONE, Step.NONE, id="stopped already"),
        pytest.param(None, RUNNING, Step.TERMINATE, id="no longer wished"),
    ],
)
def test_next_step(wish: Wish | None, state: ProcessState, step: Step) -> None:
    assert decide(replace(SPEC, wish=wish) if wish else None, state, NOW) is step


def test_a_death_is_counted_and_backed_off() -> None:
    state = after_exit(RUNNING, "exit code 1", RUNNING.since + 1)
    assert (state.phase, state.pid, state.restarts, state.last_exit) == (Phase.WAITING, None, 1, "exit code 1")
    assert state.not_before == pytest.approx(RUNNING.since + 1 + BACKOFF_FIRST_S)


def test_back_off_doubles_up_to_its_bound() -> None:
    state, waits = RUNNING, []
    for _ in range(9):
        dead = after_exit(state, "exit code 1", state.since)
        waits.append(dead.not_before - state.since)
        state = replace(RUNNING, failures_in_row=dead.failures_in_row)
    assert waits[:3] == pytest.approx([BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S])
    assert waits[-1] == pytest.approx(BACKOFF_LAST_S)


def test_a_steady_process_begins_with_the_shortest_back_off() -> None:
    later = RUNNING.since + STEADY_S + 1
    state = after_exit(replace(RUNNING, failures_in_row=6), "signal SIGKILL", later)
    assert state.not_before == pytest.approx(later + BACKOFF_FIRST_S)


def test_a_wished_end_is_no_restart() -> None:
    state = after_exit(replace(RUNNING, phase=Phase.STOPPING), "exit code 0", NOW)
    assert (state.phase, state.restarts) == (Phase.STOPPED, 0)


def test_the_last_order_stops_first_and_nothing_starts_again() -> None:
    specs = {name: replace(SPEC, name=name, order=order) for name, order in (("etcd", 0), ("api", 1), ("node", 2))}
    wishes = while_stopping(specs, {"etcd", "api"})
    assert {name: spec.wish for name, spec in wishes.items()} == {"etcd": Wish.RUN, "api": Wish.STOP}


def test_files_read_back_what_was_written() -> None:
    spec = replace(SPEC, after=("127.3.0.1", 6443), authority="ca.crt", environment={"A": "b"}, wish=Wish.PAUSE)
    assert spec_from_json(spec_to_json(spec)) == spec
    assert states_from_json(states_to_json({"etcd": RUNNING})) == {"etcd": RUNNING}
