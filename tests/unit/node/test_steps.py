"""Which container starts next."""

from __future__ import annotations

from datetime import timedelta

import pytest

from espalier_node.podspec import PodSpec
from espalier_node.steps import Limits, View, backoff_s, next_steps, progress, streak_after
from tests.support.node import START, container, pod, run, view

LIMITS = Limits(first_s=10, longest_s=300)
LATER = START + timedelta(hours=1)
SIDECAR = container("side", restartPolicy="Always")

STARTS: dict[str, tuple[PodSpec, dict[str, View], tuple[str, ...]]] = {
    "all main containers at once": (pod(container("a"), container("b")), {}, ("a", "b")),
    "first init alone": (pod(init=(container("i"), container("j"))), {}, ("i",)),
    "second init after the first": (pod(init=(container("i"), container("j"))), {"i": view(code=0)}, ("j",)),
    "nothing while init runs": (pod(init=(container("i"),)), {"i": view()}, ()),
    "main after init": (pod(init=(container("i"),)), {"i": view(code=0)}, ("main",)),
    "init again after failure": (pod(init=(container("i"),)), {"i": view(code=1)}, ("i",)),
    "init not again under Never": (pod(init=(container("i"),), restartPolicy="Never"), {"i": view(code=1)}, ()),
    "sidecar blocks until started": (pod(init=(SIDECAR,)), {"side": View(runs=(run(),))}, ()),
    "main after the sidecar started": (pod(init=(SIDECAR,)), {"side": view()}, ("main",)),
    "ended sidecar again beside main": (pod(init=(SIDECAR,)), {"side": view(code=0), "main": view()}, ("side",)),
    "ended sidecar again beside a later init": (
        pod(init=(SIDECAR, container("i"))), {"side": view(code=1), "i": view()}, ("side",),
    ),
    "ended main again under Always": (pod(), {"main": view(code=0)}, ("main",)),
    "failed main again under OnFailure": (pod(restartPolicy="OnFailure"), {"main": view(code=1)}, ("main",)),
    "succeeded main not again under OnFailure": (pod(restartPolicy="OnFailure"), {"main": view(code=0)}, ()),
    "failed main not again under Never": (pod(restartPolicy="Never"), {"main": view(code=1)}, ()),
    "init not again once main ran": (pod(init=(container("i"),)), {"i": view(code=0), "main": view(code=1)}, ("main",)),
}  # fmt: skip


@pytest.mark.parametrize("case", STARTS)
def test_what_starts(case: str) -> None:
    spec, views, expected = STARTS[case]
    assert next_steps(spec, views, LATER, LIMITS).start == expected


def test_a_crash_loop_waits_and_says_until_when() -> None:
    steps = next_steps(pod(), {"main": view(code=1, streak=1)}, START + timedelta(seconds=2), LIMITS)
    assert steps.start == ()
    assert steps.waiting["main"].reason == "CrashLoopBackOff"
    assert "back-off 10s" in steps.waiting["main"].message
    assert steps.wake_at == START + timedelta(seconds=11)


def test_sidecars_stop_when_the_work_is_done() -> None:
    spec = pod(init=(SIDECAR,), restartPolicy="Never")
    assert next_steps(spec, {"side": view(), "main": view(code=0)}, LATER, LIMITS).stop == ("side",)


@pytest.mark.parametrize(
    ("streak", "seconds", "expected"),
    [(0, 1, 0), (1, 1, 10), (2, 1, 20), (3, 1, 40), (9, 1, 300), (200, 1, 300), (9, 700, 0)],
    ids=["first crash", "second", "third", "fourth", "capped", "capped for ever", "after a healthy run"],
)
def test_backoff_doubles_to_its_bound(streak: int, seconds: float, expected: float) -> None:
    assert backoff_s(run(code=1, streak=streak, seconds=seconds), LIMITS) == expected


def test_a_long_run_ends_the_streak() -> None:
    assert streak_after(run(code=1, streak=4, seconds=601)) == 0
    assert streak_after(run(code=1, streak=4, seconds=599)) == 5


PHASES: dict[str, tuple[PodSpec, dict[str, View], str]] = {
    "nothing yet": (pod(), {}, "Pending"),
    "init running": (pod(init=(container("i"),)), {"i": view()}, "Pending"),
    "init failed for ever": (pod(init=(container("i"),), restartPolicy="Never"), {"i": view(code=1)}, "Failed"),
    "one of two started": (pod(container("a"), container("b")), {"a": view()}, "Pending"),
    "running": (pod(), {"main": view()}, "Running"),
    "between restarts": (pod(), {"main": view(code=1)}, "Running"),
    "retry under OnFailure": (pod(restartPolicy="OnFailure"), {"main": view(code=1)}, "Running"),
    "succeeded": (pod(restartPolicy="Never"), {"main": view(code=0)}, "Succeeded"),
    "one of two failed": (
        pod(container("a"), container("b"), restartPolicy="Never"), {"a": view(code=0), "b": view(code=1)}, "Failed",
    ),
    "one failed, one runs": (
        pod(container("a"), container("b"), restartPolicy="Never"), {"a": view(), "b": view(code=1)}, "Running",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PHASES)
def test_progress(case: str) -> None:
    spec, views, expected = PHASES[case]
    assert progress(spec, views) == expected
