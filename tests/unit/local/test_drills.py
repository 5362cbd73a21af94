"""What follows from a drill's looks: signs that were there before do not count; gaps reach from fault to end."""

from __future__ import annotations

from dataclasses import replace

from tests.drills.timeline import Look, times

BOTH = frozenset({"mac-1", "mac-2"})
WELL = Look(0.0, 2, BOTH, BOTH, 2, "", "Running")
ALONE = frozenset({"mac-2"})


def test_each_sign_counts_from_the_fault() -> None:
    looks = [
        WELL,
        replace(WELL, at=12.0, done=3),
        replace(WELL, at=18.0, done=3, serving=ALONE, degraded="ModelServerDown"),
        replace(WELL, at=22.0, done=3, ready=ALONE, serving=ALONE, degraded="ModelServerFailover"),
        replace(WELL, at=31.0, done=6, ready=ALONE, serving=ALONE, phase="Complete"),
    ]
    seen = times(looks, 10.0, "mac-1")
    assert (seen.not_ready, seen.withdrawn, seen.degraded, seen.reason) == (12.0, 8.0, 8.0, "ModelServerDown")
    assert (seen.next_result, seen.longest_gap, seen.finished, seen.done_before) == (2.0, 19.0, 21.0, 2)


def test_what_was_so_before_is_no_sign() -> None:
    before = replace(WELL, ready=ALONE, serving=ALONE, degraded="WorkerMissing")
    seen = times([before, replace(before, at=5.0), replace(before, at=9.0, phase="Failed")], 1.0, "mac-1")
    assert (seen.not_ready, seen.withdrawn, seen.degraded, seen.next_result) == (None, None, None, None)
    assert (seen.longest_gap, seen.finished) == (8.0, 8.0)


def test_servers_that_go_with_their_job_are_not_withdrawn() -> None:
    gone = replace(WELL, at=9.0, serving=frozenset(), servers=0)
    assert times([WELL, gone, replace(gone, at=9.5, phase="Complete")], 1.0, "mac-1").withdrawn is None
