"""From the tests' JUnit report to the page: counts by area, each failure with its reason."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

EXPLAINED: tuple[tuple[str, str], ...] = (
    (
        "pull policy of Always",
        "it demands that an image is pulled; there is no registry here, and nothing ever tries to reach one",
    ),
    (
        "read only busybox container",
        "it compares a shell's words; the shell of our busybox image is bash, which refuses the write in other words",
    ),
    ("Sample API Server", "it needs the images of a sample API server and of etcd, which are not among ours"),
    (
        "should not allow privilege escalation when false",
        "it needs the image nonewprivs, whose program gains rights where it may, which is not among ours",
    ),
)
"""Pattern of a test's name and why it fails here. A failure that no pattern explains fails the run."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one test ended."""

    name: str
    is_failure: bool
    seconds: float
    message: str = ""

    @property
    def word(self) -> str:
        """For the page."""
        return "failed" if self.is_failure else "passed"

    @property
    def area(self) -> str:
        """Its special interest group and first word, as in "sig-apps Job"."""
        found = re.match(r"\[(sig-[a-z-]+)\] (?:\[[^\]]*\] )?(\w+)", self.name)
        return f"{found[1]} {found[2]}" if found else "other"


def read(report: Path) -> list[Result]:
    """Those that ran; raises `OSError` when there is no report, which means that none did."""
    results = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("name", "").removeprefix("[It] ")
        if case.find("skipped") is not None or not name.startswith("[sig-"):
            continue
        failure = case.find("failure") if case.find("failure") is not None else case.find("error")
        message = "" if failure is None else " ".join((failure.get("message") or "").split())[:300]
        if message.startswith("Interrupted"):
            continue  # it was running when the run was stopped: neither passed nor failed
        results.append(Result(_bare(name), failure is not None, float(case.get("time", 0)), message))
    return sorted(results, key=lambda result: result.name)


def reason_of(name: str) -> str | None:
    """Why this test fails here, if that is known."""
    return next((reason for pattern, reason in EXPLAINED if re.search(pattern, name)), None)


def write(target: Path, results: list[Result], *, selected: int, seconds: float) -> None:
    """The page; `selected` is how many tests a run that is not stopped has."""
    failures = [result for result in results if result.is_failure]
    missing = len(results) < selected
    ran, failed = Counter(result.area for result in results), Counter(result.area for result in failures)
    lines = [
        "# Conformance",
        "",
        "Kubernetes' own end-to-end tests against the container nodes of a local cluster; `make conformance` runs them",
        "and writes this page. Images are of our own making (agnhost from its module, busybox from Debian's also",
        "where some web server is wanted, pause ours), so tests that need any other image cannot pass here.",
        "",
        f"**{len(results) - len(failures)} of {len(results)} passed** in {seconds / 60:.0f} minutes.",
        *([f"The run was stopped before the other {selected - len(results)} of {selected}."] if missing else []),
        "",
        "| area | passed | of |",
        "|---|---|---|",
        *(f"| {area} | {ran[area] - failed[area]} | {ran[area]} |" for area in sorted(ran)),
        "",
        "## Failures",
        "",
        *(_line(result) for result in failures),
        *(["None."] if not failures else []),
        "",
        "## Every test",
        "",
        *(f"- {result.word} {result.seconds:.0f} s: {_escaped(result.name)}" for result in results),
        "",
    ]  # fmt: skip
    target.write_text("\n".join(lines))


def _line(result: Result) -> str:
    return f"- {_escaped(result.name)}: {reason_of(result.name) or 'not explained yet'}"


def _bare(name: str) -> str:
    """Without the labels that Ginkgo adds at the end."""
    return re.sub(r" \[[^\[\]]*, Conformance[^\[\]]*\]$", "", name)


def _escaped(name: str) -> str:
    return name.replace("|", "\\|").replace("<", "&lt;")
