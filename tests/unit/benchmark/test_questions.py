"""What is kept of an answer: by a key that names all it depends on, and through a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from espalier_api.benchmarkload import Limits
from espalier_benchmark.asking import Refused, Said, said, token_logprobs
from espalier_benchmark.budget import share_of
from espalier_benchmark.items import Item
from espalier_benchmark.questions import Identity, ItemRecord, Journal, from_lines, to_lines
from tests.support.benchmarks import price

IDENTITY = Identity(model="m", revision="r", temperature=0.0, seed=1, max_tokens=64, template="t")
ITEM = Item((("user", "Why?"),), 32)


def test_a_key_changes_with_everything_an_answer_depends_on() -> None:
    others = [
        replace(IDENTITY, **change)
        for change in (
            {"model": "n"}, {"revision": "s"}, {"temperature": 0.5}, {"seed": 2}, {"max_tokens": 65}, {"template": "u"},
        )
    ]  # fmt: skip
    keys = {identity.key(ITEM) for identity in (IDENTITY, *others)}
    keys |= {IDENTITY.key(Item((("user", "How?"),), 32)), IDENTITY.key(Item((("user", "Why?"),), 33))}
    assert len(keys) == 9
    assert IDENTITY.key(ITEM) == IDENTITY.key(Item((("user", "Why?"),), 32))


def test_a_journal_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a" / "answers.jsonl"
    Journal(path).put("one", Said("1", output_tokens=3))
    with path.open("ab") as file:
        file.write(b'{"key": "two", "sa')
    again = Journal(path)
    assert (again.get("one"), again.get("two")) == (Said("1", output_tokens=3), None)
    again.put("three", Said("3"))
    assert Journal(path).get("three") == Said("3")
    again.close()
    assert Journal(path).get("one") is None


def test_item_records_survive_their_lines() -> None:
    records = [ItemRecord(id="1", score=None, verdicts=("first", "")), ItemRecord(id="2", score=0.5, text="é\n")]
    assert from_lines(to_lines(records)) == records


def test_a_budget_stops_at_whichever_limit_comes_first() -> None:
    budget = share_of(Limits(max_cost=1.0, max_output_tokens=400_000), 0.5)
    budget.spend(price(), prompt_tokens=100_000, output_tokens=100_000)
    assert budget.stopped == ""
    budget.spend(price(), prompt_tokens=0, output_tokens=99_999)
    assert budget.stopped == ""
    budget.spend(price(), prompt_tokens=0, output_tokens=1)
    assert budget.stopped == "limits.maxCost: 0.5000 of 0.5000 is spent"
    assert share_of(None, 1).stopped == ""


def test_what_was_spent_before_is_no_longer_there() -> None:
    assert share_of(Limits(max_output_tokens=100), 1.0, spent_tokens=150).stopped.startswith("limits.maxOutputTokens")


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{"message": None}]}])
def test_what_is_no_completion_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises(Refused, match="no chat completion"):
        said(answer)


@pytest.mark.parametrize(
    ("logprobs", "found"),
    [([None, -1.0, -2.0, -9.0], [-1.0, -2.0]), ([None], None), (None, None), ([-1.0, "x"], None)],
)
def test_only_the_prompt_s_own_log_probabilities_count(logprobs: object, found: list[float] | None) -> None:
    answer = {"choices": [{"logprobs": {"token_logprobs": logprobs}}], "usage": {"prompt_tokens": 3}}
    if found is None:
        with pytest.raises(Refused):
            token_logprobs(answer)
    else:
        assert token_logprobs(answer) == found
