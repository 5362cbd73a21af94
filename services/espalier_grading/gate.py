"""Gate: which submissions a person must see, and why. A flag sends to a person, never to zero. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from espalier_grading.model import CriterionScore, Judged

_PHRASES = re.compile(
    r"(ignore|disregard|forget)\b.{0,30}\b(instruction|prompt|rubric|above|previous)"
    r"|\b(system|developer)\s+(prompt|message)\b"
    r"|\b(as|you are)\s+(an?|the)\s+(ai|grader|judge|assistant|language model)\b"
    r"|\b(give|award|assign|grant)\b.{0,30}\b(full|maximum|max|perfect|all)\b.{0,15}\b(marks?|points?|scores?|credit|grade)"
    r"|\b(all|every)\s+criteri(a|on)\b.{0,30}\bMET\b"
    r"|[\"']v[\"']\s*:\s*[\"'](MET|PARTIAL)"
    r"|<\|?\s*/?(im_start|im_end|system|STUDENT)",
    re.IGNORECASE | re.DOTALL,
)
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MAX_INVISIBLE = 3
"""Format characters that an honest text may carry, from copying or emoji."""


def injection_flags(raw: str) -> tuple[str, ...]:
    """What in a student's text looks meant for the judge: phrases, or characters that a person cannot see."""
    flags = []
    invisible = [c for c in raw if unicodedata.category(c) == "Cf" and c != "\ufeff"]
    if any(c in _BIDI for c in invisible) or len(invisible) > MAX_INVISIBLE:
        flags.append("invisible characters")
    visible = unicodedata.normalize("NFKC", "".join(c for c in raw if unicodedata.category(c) != "Cf"))
    if _PHRASES.search(visible):
        flags.append("text that addresses the judge")
    return tuple(flags)


def review_reasons(criteria: Iterable[CriterionScore], judged: Iterable[Judged]) -> tuple[str, ...]:
    """Sentences for the reviewer; empty if the submission may pass without one."""
    reasons = [f"{c.id}: verdict void, {c.verdict.void}" for c in criteria if c.verdict.void]
    reasons += [
        f"{c.id}: the judge could not assess it"
        for c in criteria
        if c.verdict.level == "CANNOT_ASSESS" and not c.verdict.void
    ]
    for one in judged:
        if one.is_failover:
            reasons.append(f"the {one.judge} judge was another model than usual")
        if one.is_plain_text:
            reasons.append(f"the {one.judge} judge's answer was plain text, not the JSON asked for")
        reasons += [f"possible injection: {flag}" for flag in one.flags]
    return tuple(dict.fromkeys(reasons))
