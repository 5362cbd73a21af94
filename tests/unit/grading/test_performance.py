"""Speed and overlap, checked against the seed's own example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier_grading.model import Call
from espalier_grading.performance import busy_seconds, combined, judge_performance, seed_metrics


def _call(start: float, end: float, *, output: int = 100, generation: float | None = None) -> Call:
    return Call(
        model="m", server="s", prompt_tokens=10, output_tokens=output, total_tokens=10 + output,
        generation_time_seconds=end - start if generation is None else generation, tokens_per_second=1,
        prompt_eval_time_seconds=1.0, started=start, ended=end,
    )  # fmt: skip


def test_the_seeds_example_comes_out_as_it_stands_there() -> None:
    qwen = _call(0, 12.68, output=402)
    gpt = _call(0, 18.45, output=726)
    figures = seed_metrics([qwen], [gpt])
    assert figures["code_performance"]["tokens_per_second"] == pytest.approx(31.7, abs=0.05)
    assert figures["feedback_performance"]["tokens_per_second"] == pytest.approx(39.3, abs=0.1)
    assert figures["combined_metrics"]["combined_throughput_tokens_per_second"] == pytest.approx(61.1, abs=0.1)
    assert figures["combined_metrics"]["total_processing_time"] == pytest.approx(18.5, abs=0.1)
    assert figures["combined_metrics"]["parallel_efficiency"] == pytest.approx(1.69, abs=0.01)
    assert figures["combined_metrics"]["fraction_of_bound"] == 1


def test_one_after_the_other_is_no_speed_up() -> None:
    both = combined([_call(0, 10)], [_call(10, 20)])
    assert both is not None
    assert (both.speedup, both.efficiency) == (1, 0.5)


@pytest.mark.parametrize(("code", "feedback"), [([], []), ([_call(0, 1)], []), ([_call(1, 1)], [_call(1, 1)])])
def test_without_two_busy_judges_there_is_no_overlap(code: list[Call], feedback: list[Call]) -> None:
    assert combined(code, feedback) is None


INTERVALS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda t: (t[0], t[0] + t[1])), max_size=12)


@given(INTERVALS)
def test_busy_time_is_what_a_count_of_seconds_gives(intervals: list[tuple[int, int]]) -> None:
    covered = {second for start, end in intervals for second in range(start, end)}
    assert busy_seconds(intervals) == len(covered)


@given(INTERVALS, INTERVALS)
def test_efficiency_is_a_fraction(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    both = combined([_call(*i) for i in first], [_call(*i) for i in second])
    if both is not None:
        assert 0 < both.efficiency <= 1 + 1e-9
        assert 1 - 1e-9 <= both.speedup <= 2 + 1e-9


def test_a_judges_figures_are_over_all_its_calls() -> None:
    figures = judge_performance([_call(0, 2, output=10), _call(5, 9, output=50)])
    assert figures is not None
    assert (figures.tokens_per_second, figures.output_tokens, figures.p50_seconds, figures.p95_seconds) == (
        10,
        60,
        2,
        4,
    )
    assert judge_performance([]) is None
