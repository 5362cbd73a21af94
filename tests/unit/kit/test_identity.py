"""Digests and conditions: equal things have equal identities, times move only with the truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from espalier_api.meta import Condition, is_true, set_condition
from espalier_kit.digest import canonical_json, task_id, value_digest

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(hours=1)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert value_digest(dict(reversed(value.items()))) == value_digest(value)
    assert b" \n" not in canonical_json({"a": [1, 2]})


@given(st.text(), st.text(), st.text(), st.text())
def test_a_task_is_its_job_and_its_key(job: str, key: str, other_job: str, other_key: str) -> None:
    same = (job, key) == (other_job, other_key)
    assert (task_id(job, key) == task_id(other_job, other_key)) is same or "\0" in job + key + other_job + other_key


def _condition(status: str, at: datetime, reason: str = "Running") -> Condition:
    return Condition(type="Progressing", status=status, reason=reason, last_transition_time=at)  # type: ignore[arg-type]


def test_the_transition_time_moves_only_when_the_status_does() -> None:
    start = set_condition((), _condition("True", EARLY))
    same = set_condition(start, _condition("True", LATE, "Starting"))
    turned = set_condition(same, _condition("False", LATE))
    assert (same[0].last_transition_time, same[0].reason) == (EARLY, "Starting")
    assert turned[0].last_transition_time == LATE
    assert len(turned) == 1
    assert is_true(same, "Progressing")
    assert not is_true(turned, "Progressing")
