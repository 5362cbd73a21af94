"""The page of drills."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.drills.stories import Outcome

PAGE = Path("docs/reference/drills.md")
_HEAD = ("what breaks", "class", "tasks left", "node NotReady", "endpoint withdrawn", "job Degraded", "next result",
         "longest gap", "job ends", "begun again")  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """One row for each drill, in seconds after the fault."""
    rows = [_HEAD, ("---", *["---:"] * (len(_HEAD) - 1)), *(_row(outcome) for outcome in outcomes)]
    return [f"| {' | '.join(row)} |" for row in rows]


def write(target: Path, outcomes: Sequence[Outcome]) -> None:
    """The page, from a run of all drills."""
    lines = [
        "# Drills on cables",
        "",
        "Two Linux nodes with a real kubelet and two Macs, each on a cable of its own",
        "(`espalier local up --nodes container --linux 2`),",
        "our images and charts. Each drill grades a class in one-shot pods and breaks one thing",
        "when two tasks are done. It fails unless the job ends within its bound, every submission has one row with its",
        "points, every task one result, and there are as many results as submissions. It fails as well unless",
        "the other judge's server answered for a Mac that was cut off (Degraded, `ModelServerFailover`) after its",
        "endpoint was withdrawn, a Linux node that was cut off was called NotReady and the notebook that was being",
        "executed there begun again, calls through the cable of 64 kbit/s took 1.5 times as long as the other judge's",
        "in the same class, and without CoreDNS a pod was told that there is no such name. A class that is not listed",
        "warms the cluster up. `make drill` runs them all and writes this page; `make test` runs the first cut on one",
        "Linux node.",
        "",
        "Seconds after the fault, on two cores that may be busy with other work:",
        "",
        *table(outcomes),
        "",
        "*Tasks left* had no result when the fault began; the job ends sooner where they are fewer. The Macs are",
        "simulated on the same cores, so a Mac that is cut off leaves its share of them to all others.",
        "A dash: it did not happen, or not before the job ended. *Begun again* counts tasks that were given out more",
        "than once; one result of each counted. *Longest gap* is the longest time without a new result. A node is",
        "called NotReady after about 12 s without a sign of life; a lease of a silent worker ends after 30 s.",
        "One-shot pods of a lost node are made again after 45 s. While the operator's own node is cut off, the job's",
        "status stands still: Degraded comes when the node is back.",
        "",
    ]
    target.write_text("\n".join(lines))


def _row(outcome: Outcome) -> tuple[str, ...]:
    seen = outcome.times
    degraded = f"{_seconds(seen.degraded)} `{seen.reason}`" if seen.reason else "–"
    return (
        outcome.drill.what, str(outcome.submissions), f"{outcome.tasks - seen.done_before} of {outcome.tasks}",
        _seconds(seen.not_ready), _seconds(seen.withdrawn), degraded,
        _seconds(seen.next_result), _seconds(seen.longest_gap), _seconds(seen.finished),
        f"{outcome.again} tasks",
    )  # fmt: skip


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
