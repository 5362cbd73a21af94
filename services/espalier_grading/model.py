"""Frozen values that pass between the stages; each is JSON in a result's value or in the artifact store."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from espalier_api.tasks import Judge

Level = Literal["MET", "PARTIAL", "UNMET", "CANNOT_ASSESS"]
LEVELS: tuple[Level, ...] = ("MET", "PARTIAL", "UNMET", "CANNOT_ASSESS")

State = Literal["graded", "needsReview", "notGradable", "failed"]


class Value(BaseModel):
    """Base: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Value):
    """Something a person should know about a submission; it costs no points by itself."""

    kind: str
    where: str
    message: str


class RunCell(Value):
    """A code cell to run. `test` is the id of the automatic test it is, if it is one."""

    key: str
    source: str
    test: str | None = None


class NotebookRun(Value):
    """One notebook, ready to run: the student's cells with the bundle's own tests in their places."""

    notebook: str
    kernel: str
    cells: tuple[RunCell, ...]


class Answer(Value):
    """What a student wrote into one cell of the release, as a judge may see it: no names, no invisible characters."""

    cell: str
    text: str
    is_unchanged: bool
    flags: tuple[str, ...] = ()


class Prepared(Value):
    """A submission after intake and alignment."""

    pseudonym: str
    notebooks: tuple[NotebookRun, ...]
    answers: tuple[Answer, ...]
    findings: tuple[Finding, ...] = ()


class CellResult(Value):
    """One executed cell. `reason` is empty if it ran, else an exception's name or one of Timeout, KernelDied,
    OutOfMemory, Killed, NotRun.
    """

    key: str
    reason: str = ""
    message: str = ""
    output: str = ""
    seconds: float = 0.0


class NotebookResult(Value):
    """One executed notebook."""

    notebook: str
    cells: tuple[CellResult, ...]


class TestResult(Value):
    """One automatic test; `reason` as in `CellResult`."""

    __test__ = False

    id: str
    points: float
    earned: float
    reason: str = ""


class Executed(Value):
    """Value of `grading.execute`. `results` is the artifact of the `NotebookResult`s, None if nothing had to run."""

    tests: tuple[TestResult, ...]
    results: str | None = None


class Intake(Value):
    """Value of `grading.intake`: the artifact of `Prepared`, and the wall time when it was ready (Unix seconds)."""

    prepared: str
    findings: tuple[Finding, ...]
    started: float


class Verdict(Value):
    """One criterion's verdict. `void` says why it does not count; `by` is `code` where no model was asked."""

    criterion: str
    level: Level
    quote: str = ""
    cell: str = ""
    by: Literal["model", "code"] = "model"
    void: str = ""


class Call(Value):
    """One model call, in the seed's names; `started` and `ended` are Unix seconds, for the overlap."""

    model: str
    server: str
    prompt_tokens: int
    output_tokens: int
    total_tokens: int
    generation_time_seconds: float
    tokens_per_second: float
    prompt_eval_time_seconds: float
    started: float
    ended: float


class Judged(Value):
    """Value of `grading.judge`. `call` is None where every criterion was decided by code."""

    judge: Judge
    verdicts: tuple[Verdict, ...]
    comment: str = ""
    call: Call | None = None
    is_failover: bool = False
    is_plain_text: bool = False
    flags: tuple[str, ...] = ()


class CriterionScore(Value):
    """Points of one criterion. `capped_by` names the failed tests that lowered it."""

    id: str
    title: str
    points: float
    earned: float
    verdict: Verdict
    capped_by: tuple[str, ...] = ()


class Graded(Value):
    """A scored submission in full; lives in the artifact store."""

    pseudonym: str
    state: State
    reason: str = ""
    message: str = ""
    tests: tuple[TestResult, ...] = ()
    criteria: tuple[CriterionScore, ...] = ()
    findings: tuple[Finding, ...] = ()
    review: tuple[str, ...] = ()
    comment: str = ""
    failover: tuple[Judge, ...] = ()
    plain_text: tuple[Judge, ...] = ()
    earned: float = 0.0
    total: float = 0.0
    points: float | None = None
    code: Call | None = None
    feedback: Call | None = None
    started: float = 0.0
    ended: float = 0.0


class Row(Value):
    """Value of `grading.score`: small, since the report gets one for each submission; the rest is in `detail`."""

    pseudonym: str
    state: State
    points: float | None = None
    detail: str
