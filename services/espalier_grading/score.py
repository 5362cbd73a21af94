"""One submission's outcome from the ends of its stages: exactly one `Graded`, whatever failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from espalier_grading.aggregate import earned, scaled, score_criteria
from espalier_grading.bundle import Bundle
from espalier_grading.gate import review_reasons
from espalier_grading.intake import USER_REASONS
from espalier_grading.model import Executed, Graded, Intake, Judged
from espalier_kit.execution import Outcome, TaskState


def grade(bundle: Bundle, inputs: Mapping[str, Outcome], *, pseudonym: str, scale: float, now: float) -> Graded:
    """`inputs` by stage name (`intake`, `execute`, `code`, `feedback`); a stage that did not end well yields no number.
    """
    total = bundle.assignment.total
    first_bad = next((outcome for outcome in inputs.values() if outcome.state is not TaskState.DONE), None)
    if first_bad is not None:
        state = "notGradable" if first_bad.reason in USER_REASONS else "failed"
        reason = first_bad.reason or first_bad.state.value
        return Graded(
            pseudonym=pseudonym,
            state="notGradable" if state == "notGradable" else "failed",
            reason=reason,
            message=first_bad.message or reason,
            total=total,
            started=_started(inputs),
            ended=now,
        )
    try:
        intake = Intake.model_validate(inputs["intake"].value)
        executed = Executed.model_validate(inputs["execute"].value)
        judged = [Judged.model_validate(inputs[name].value) for name in ("code", "feedback")]
    except (KeyError, ValidationError) as error:
        return Graded(
            pseudonym=pseudonym,
            state="failed",
            reason="BadResult",
            message=f"a stage's value cannot be read: {error}"[:500],
            total=total,
            ended=now,
        )
    return _graded(bundle, intake, executed, judged, pseudonym=pseudonym, scale=scale, now=now)


def _graded(
    bundle: Bundle,
    intake: Intake,
    executed: Executed,
    judged: list[Judged],
    *,
    pseudonym: str,
    scale: float,
    now: float,
) -> Graded:
    total = bundle.assignment.total
    criteria = score_criteria(bundle, [verdict for one in judged for verdict in one.verdicts], executed.tests)
    points = earned(executed.tests, criteria)
    review = review_reasons(criteria, judged)
    code, feedback = judged
    return Graded(
        pseudonym=pseudonym,
        state="needsReview" if review else "graded",
        tests=executed.tests,
        criteria=criteria,
        findings=intake.findings,
        review=review,
        comment=feedback.comment,
        failover=tuple(one.judge for one in judged if one.is_failover),
        plain_text=tuple(one.judge for one in judged if one.is_plain_text),
        earned=points,
        total=total,
        points=scaled(points, total=total, scale=scale),
        code=code.call,
        feedback=feedback.call,
        started=intake.started,
        ended=now,
    )


def _started(inputs: Mapping[str, Outcome]) -> float:
    value = inputs["intake"].value if "intake" in inputs else None
    started = (value or {}).get("started", 0.0)
    return float(started) if isinstance(started, int | float) else 0.0
