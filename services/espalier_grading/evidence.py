"""Evidence: a verdict counts only if its quote is really in the cell it names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from espalier_grading.model import Verdict

MIN_QUOTE = 3
"""Characters, without white space, that a quote needs: a lone bracket is in every cell."""


def check_evidence(verdict: Verdict, texts: Mapping[str, str]) -> Verdict:
    """The verdict, void with a reason if it earns points without real evidence; `texts` are the criterion's cells as
    sent.
    """
    if verdict.void or verdict.by == "code" or verdict.level == "CANNOT_ASSESS":
        return verdict
    void = _why_void(verdict, texts)
    return verdict.model_copy(update={"void": void}) if void else verdict


def is_quoted(quote: str, text: str) -> bool:
    """Whether the quote is in the text, but for white space."""
    return " ".join(quote.split()) in " ".join(text.split())


def _why_void(verdict: Verdict, texts: Mapping[str, str]) -> str:
    if not verdict.quote.strip():
        return "" if verdict.level == "UNMET" else "no quote"
    if verdict.cell not in texts:
        return "the quote names no cell of the criterion"
    if not is_quoted(verdict.quote, texts[verdict.cell]):
        return "the quote is not in the cell"
    if verdict.level != "UNMET" and len("".join(verdict.quote.split())) < MIN_QUOTE:
        return "the quote is too short to prove anything"
    return ""
