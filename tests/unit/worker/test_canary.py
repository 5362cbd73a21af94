"""What the canary calls a success: one task, done at the first try, with its own result."""

from __future__ import annotations

from typing import Any

import pytest

from espalier_kit.errors import Permanent
from espalier_rpc.views import JobView, TaskView
from espalier_worker.canary import TYPE, check

JOB = JobView("canary-1", "espalier-system", "canary", "Canary", "complete")


def task(**changes: Any) -> TaskView:
    fields: dict[str, Any] = {"state": "done", "attempts": 1, "value": {"word": "chirp"}, **changes}
    return TaskView("id", "sing", TYPE, **fields)


def test_one_task_with_its_own_result_is_a_success() -> None:
    check(JOB, (task(),), "chirp")


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ((), "its tasks: none"),
        ((task(state="failed", message="no room"),), "sing failed no room"),
        ((task(), task()), "sing done, sing done"),
        ((task(attempts=2),), "tried 2 times"),
        ((task(value={"word": "other"}),), "not what was sent"),
        ((task(value=None),), "not what was sent"),
    ],
    ids=["no task", "a failure", "two tasks", "a second try", "another result", "no result"],
)
def test_anything_else_is_a_sentence(tasks: tuple[TaskView, ...], sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        check(JOB, tasks, "chirp")
