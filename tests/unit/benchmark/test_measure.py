"""Records and what is made of them: files that survive a crash, tokens counted rightly, goodput, saturation."""

from __future__ import annotations

import io
import json

import pytest

from espalier_benchmark.items import from_lines, synthetic
from espalier_benchmark.measure import Slo, Window, saturation, stages, summarise
from espalier_benchmark.records import Record, Writer, read, to_line
from espalier_benchmark.schedule import Arrival
from espalier_benchmark.stream import Answer
from espalier_kit.errors import Misconfigured, Permanent


def record(
    index: int = 0, *, at: float = 0.0, ttft: float = 0.1, took: float = 1.0, late: float = 0.0, **more: object
) -> Record:
    sent = at + late
    fields: dict[str, object] = {
        "index": index, "target": "t", "intended_s": at, "sent_s": sent, "first_s": sent + ttft, "ended_s": sent + took,
        "chunks": ((sent + ttft, 1.0), (sent + took, 9.0)), "output_tokens": 10.0, "prompt_tokens": 5,
    }  # fmt: skip
    return Record(**(fields | more))  # type: ignore[arg-type]  # a builder: the test's keywords are Record's


def test_records_survive_their_file() -> None:
    written = [record(0), record(1, at=2.5, error="timeout", detail="a\nb", model="ü")]
    file = io.StringIO()
    for each in written:
        Writer(file)(each)
    assert list(read(file.getvalue().splitlines(keepends=True))) == written


def test_a_line_cut_by_a_crash_is_left_out_but_a_broken_one_is_an_error() -> None:
    line = to_line(record(0))
    assert len(list(read([line, line, line[:40]]))) == 2
    with pytest.raises(Permanent, match="no benchmark record"):
        list(read([line, "oops\n", line]))


def events(*chunks: dict[str, object]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks) + b"data: [DONE]\n\n"


def chunk(delta: dict[str, object], usage: int | None = None) -> dict[str, object]:
    found: dict[str, object] = {"choices": [{"delta": delta}]}
    return found | ({} if usage is None else {"usage": {"completion_tokens": usage, "prompt_tokens": 3}})


def test_reasoning_counts_as_the_first_token_and_the_answer_is_told_apart() -> None:
    answer = Answer()
    for at, delta in enumerate([{"role": "assistant", "content": ""}, {"reasoning": "hm"}, {"content": "4"}]):
        answer.feed(events(chunk(delta))[:-14], float(at))
    assert (answer.first_s, answer.first_content_s) == (1.0, 2.0)
    assert [tokens for _, tokens in answer.chunks()] == [1.0, 1.0]
    assert answer.token_source == "chunks"


def test_tokens_are_counted_by_the_server_where_it_says_so_in_each_chunk() -> None:
    answer = Answer()
    answer.feed(events(chunk({"content": "a"}, 1), chunk({"content": "bcd"}, 4)), 1.0)
    assert (answer.token_source, [tokens for _, tokens in answer.chunks()]) == ("stream", [1.0, 3.0])


def test_tokens_are_spread_over_the_chunks_where_only_the_end_says_how_many() -> None:
    answer = Answer()
    answer.feed(
        events(chunk({"content": "ab"}), chunk({"content": "cd"}), {"choices": [], "usage": {"completion_tokens": 6}}),
        1.0,
    )
    assert (answer.token_source, [tokens for _, tokens in answer.chunks()]) == ("usage", [3.0, 3.0])
    assert answer.is_done


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_stream_may_be_cut_anywhere(size: int) -> None:
    data, answer = events(chunk({"content": "né"}), chunk({"content": "b"})), Answer()
    for start in range(0, len(data), size):
        answer.feed(data[start : start + size], float(start))
    assert (len(answer.chunks()), answer.is_done) == (2, True)


def test_itl_is_per_token_not_per_chunk() -> None:
    summary = summarise([record(i, at=i) for i in range(20)])
    assert summary.latency("itl").count == 180
    assert summary.latency("itl").percentiles[0].value == pytest.approx(0.1)
    assert summary.latency("chunk_gap").percentiles[0].value == pytest.approx(0.9)


def test_warm_up_is_cut_by_when_requests_were_due() -> None:
    records = [record(i, at=float(i), took=9.0 if i < 5 else 1.0, late=1.0 if i == 4 else 0.0) for i in range(20)]
    kept = summarise(records, window=Window(start_s=5.0, end_s=15.0))
    assert (kept.requests, kept.latency("e2e").mean_s) == (10, pytest.approx(1.0))
    assert kept.requests_per_s == pytest.approx(10 / 10.0)
    assert summarise([]).requests_per_s == 0.0


def test_goodput_counts_what_kept_every_limit_since_it_was_due() -> None:
    records = [record(0), record(1, ttft=0.4), record(2, took=3.0), record(3, late=0.3), record(4, error="http-500")]
    assert summarise(records, slo=Slo(ttft_ms=350, e2e_ms=2000)).good == 1
    assert summarise(records, slo=Slo(itl_ms=110)).good == 3
    assert summarise(records).good == 4


@pytest.mark.parametrize("limits", [{"ttft_ms": 0}, {"e2e_ms": -1}, {"ttft_ms": 500, "e2e_ms": 100}])
def test_an_impossible_objective_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(Misconfigured):
        Slo(**limits)


def test_a_sweep_finds_the_last_rate_that_the_server_kept_up_with() -> None:
    """One server that needs 0.1 s per request, asked 5, 8, 12 and 20 times a second, 20 s each."""
    records, free = [], 0.0
    for stage, rate in enumerate((5, 8, 12, 20)):
        start, free = stage * 20.0, 0.0
        for i in range(rate * 20):
            at = start + i / rate
            free = max(free, at) + 0.1
            records.append(record(len(records), at=at, took=free - at, stage=stage))
    found = stages(records)
    assert [each.keeps_up for each in found] == [True, True, False, False]
    best = saturation(found)
    assert best is not None
    assert best.offered_per_s == pytest.approx(8, rel=0.02)
    assert saturation(found[2:]) is None


def test_items_are_the_same_everywhere_and_share_no_beginning() -> None:
    items = synthetic(seed=1, prompt_tokens=10, output_tokens=4)
    first, second = items(Arrival(0, 0.0)), items(Arrival(1, 0.0))
    assert first == synthetic(seed=1, prompt_tokens=10, output_tokens=4)(Arrival(0, 5.0))
    assert first.messages[0][1].split()[0] != second.messages[0][1].split()[0]
    traced = items(Arrival(0, 0.0, prompt_tokens=30, output_tokens=2))
    assert (len(traced.messages[0][1].split()), traced.max_tokens) == (30, 2)


def test_a_dataset_goes_round_and_names_its_broken_line() -> None:
    items = from_lines(
        '{"prompt": "a"}\n{"messages": [{"role": "user", "content": "b"}], "max_tokens": 3}\n', max_tokens=9
    )
    found = [items(Arrival(i, 0.0)) for i in range(3)]
    assert [(item.messages[0][1], item.max_tokens) for item in found] == [("a", 9), ("b", 3), ("a", 9)]
    for text, says in (("", "is empty"), ('{"prompt": "a"}\n{}\n', "line 2 of the dataset: KeyError")):
        with pytest.raises(Misconfigured, match=says):
            from_lines(text, max_tokens=9)
