"""A verdict without real evidence is void."""

from __future__ import annotations

import pytest

from espalier_grading.evidence import check_evidence
from espalier_grading.model import Level, Verdict

TEXTS = {"n/a": "The  loop runs\nonce for each number."}


@pytest.mark.parametrize(
    ("level", "quote", "cell", "void"),
    [
        pytest.param("MET", "loop runs once", "n/a", "", id="real"),
        pytest.param("MET", "  once for each number.  ", "n/a", "", id="white-space"),
        pytest.param("MET", "loop never runs", "n/a", "not in the cell", id="invented"),
        pytest.param("MET", "LOOP RUNS", "n/a", "not in the cell", id="other-case"),
        pytest.param("MET", "loop runs", "n/b", "names no cell", id="other-cell"),
        pytest.param("PARTIAL", "", "n/a", "no quote", id="none"),
        pytest.param("MET", "r.", "n/a", "too short", id="too-short"),
        pytest.param("UNMET", "", "n/a", "", id="unmet-needs-none"),
        pytest.param("UNMET", "an invented line", "n/a", "not in the cell", id="unmet-invented"),
        pytest.param("CANNOT_ASSESS", "whatever", "", "", id="cannot-assess"),
    ],
)
def test_quotes_are_checked_against_their_cell(level: Level, quote: str, cell: str, void: str) -> None:
    checked = check_evidence(Verdict(criterion="c", level=level, quote=quote, cell=cell), TEXTS)
    assert (void in checked.void) if void else (checked.void == "")


def test_what_code_decided_needs_no_quote() -> None:
    decided = Verdict(criterion="c", level="UNMET", by="code")
    assert check_evidence(decided, {}) == decided
