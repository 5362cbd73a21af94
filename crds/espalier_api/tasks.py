"""Payloads and values of the tasks we ship: operator, executors and reports agree without importing each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier_api.gradingjob import Execution, PerformanceTargets, Scores, SubmissionCounts
from espalier_api.meta import Model

Judge = Literal["code", "feedback"]
Role = Literal["code", "feedback", "fallback"]


class JudgeSettings(Model):
    """How one judge is asked. The servers themselves come with the job's endpoints, by role."""

    model: str | None = None
    max_tokens: int
    temperature: float
    seed: int


class GradingSettings(Model):
    """What every grading task of a job knows: the payload of `grading.admit`."""

    assignment: str = Field(description="sha256 of the bundle's tar, in the artifact store.")
    submissions: str = Field(description="sha256 of the submissions' tar.")
    scale_points: float
    code: JudgeSettings
    feedback: JudgeSettings
    execution: Execution
    targets: PerformanceTargets
    shared_hardware: bool = False


class ReachTask(Model):
    """Payload of `grading.reach`: the judges whose servers are outside the platform."""

    judges: tuple[Judge, ...]


def sandbox_tags(sandbox: str | None) -> tuple[str, ...]:
    """What a worker must offer to run code of others: nothing, or that its pod has such a sandbox in it."""
    return (f"sandbox/{sandbox}",) if sandbox in ("container", "gvisor") else ()


class SubmissionTask(Model):
    """Payload of intake, execute, judge and score: which submission, under which settings."""

    settings: GradingSettings
    pseudonym: str
    folder: str = Field(description="The student's folder name; only intake gets it.")
    archive: str = Field(
        default="",
        description="sha256 of this submission's own tar, which admission cut out of the class's; for intake.",
    )
    judge: Judge | None = None


class ReportTask(Model):
    """Payload of `grading.report`."""

    settings: GradingSettings
    pseudonyms: tuple[str, ...]


class JudgePerformance(Model):
    """One judge over a job, as the report measures it."""

    tokens_per_second: float
    prompt_tokens: int
    output_tokens: int
    p50_seconds: float
    p95_seconds: float


class ReportValue(Model):
    """Value of `grading.report`: what the operator puts into the status."""

    index: str = Field(description="sha256 of the index.json that names all report files.")
    submissions: SubmissionCounts
    scores: Scores | None = None
    code: JudgePerformance | None = None
    feedback: JudgePerformance | None = None
    combined_tokens_per_second: float | None = None
    parallel_speedup: float | None = None
    parallel_efficiency: float | None = None
    submissions_per_hour: float | None = None


TALLY_GRADED = "graded"
TALLY_REVIEW = "needsReview"
TALLY_NOT_GRADABLE = "notGradable"
TALLY_FAILED = "failed"
TALLY_POINTS = "points"
TALLY_FAILOVER = "failover"
TALLY_PLAIN_TEXT = "plainText"
TALLY_EXECUTED = "executed"
"""Submissions whose code has run, for good or ill."""
TALLY_SUBMISSIONS = "submissions"
"""Written once by `grading.admit`: how many submissions the job has."""
TALLY_REACHED = "reached"
"""Written once by `grading.reach`: the judges' endpoints outside the platform can be asked."""
