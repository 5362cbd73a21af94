"""The types: wire names, defaults, conditions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from espalier_api.gradingjob import GradingJob, GradingJobSpec
from espalier_api.meta import Condition, Model, is_true, set_condition
from espalier_api.modelserver import ModelServer, ModelServerSpec
from espalier_api.reasons import REASONS

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 5, 13, tzinfo=UTC)

MINIMAL = {
    "assignment": {"uri": "artifact://" + "a" * 64},
    "submissions": {"uri": "artifact://" + "b" * 64},
    "models": {"code": {"modelServer": "m"}, "feedback": {"modelServer": "m"}},
}


def test_a_minimal_job_has_the_seeds_defaults() -> None:
    spec = GradingJobSpec.model_validate(MINIMAL)
    assert spec.scale.points == 37.5
    assert (spec.models.code.max_tokens, spec.models.code.temperature) == (800, 0.1)
    assert (spec.models.feedback.max_tokens, spec.models.feedback.temperature) == (1200, 0.3)
    assert spec.performance.targets.model_dump() == {"code": 30, "feedback": 35, "combined": 60}


def test_the_wire_form_round_trips() -> None:
    spec = GradingJobSpec.model_validate(MINIMAL)
    assert GradingJobSpec.model_validate(spec.wire()) == spec
    assert spec.wire()["runPolicy"]["taskTimeoutSeconds"] == 600


@pytest.mark.parametrize(
    ("kind", "spec"),
    [(GradingJob, MINIMAL), (ModelServer, {"models": [{"name": "m", "source": "random://tiny"}]})],
    ids=["GradingJob", "ModelServer"],
)
def test_an_object_without_status_is_valid(kind: type[Model], spec: dict[str, object]) -> None:
    assert kind.model_validate({"metadata": {"name": "x"}, "spec": spec})


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="replica"):
        ModelServerSpec.model_validate({"models": [{"name": "m", "source": "s"}], "replica": 2})


def condition(status: str, moment: datetime) -> Condition:
    return Condition.model_validate(
        {"type": "Complete", "status": status, "reason": "Finished", "lastTransitionTime": moment}
    )


def test_a_condition_moves_its_time_only_when_its_status_does() -> None:
    first = set_condition((), condition("False", NOON))
    same = set_condition(first, condition("False", LATER))
    assert same[0].last_transition_time == NOON
    changed = set_condition(same, condition("True", LATER))
    assert changed[0].last_transition_time == LATER
    assert is_true(changed, "Complete")


def test_reasons_are_camel_case_with_sentence_and_remedy() -> None:
    for reason in REASONS.values():
        assert reason.name.isidentifier(), reason
        assert reason.name[0].isupper(), reason
        assert reason.sentence.endswith("."), reason
        assert reason.remedy.endswith("."), reason
