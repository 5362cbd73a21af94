"""The report: figures under their standard names, honest tails, and nothing hostile that gets through."""

from __future__ import annotations

import csv
import io
import json
import random
import xml.etree.ElementTree as ElementTree

import pytest

from espalier_benchmark.compare import Rules, compare
from espalier_benchmark.measure import Slo, summarise
from espalier_benchmark.plots import cumulative, over_time, ticks
from espalier_benchmark.records import Record
from espalier_benchmark.report import Report, Run, report_files
from espalier_benchmark.validity import Reason, Validity

VALID = Validity()
HOSTILE = '=cmd()<script>alert("x")</script>'


def run(count: int = 40, *, hostile: str = "tiny", validity: Validity = VALID) -> Report:
    chance = random.Random(1)
    records = []
    for index in range(count):
        for target in ("a", "b"):
            took = chance.lognormvariate(0, 0.2)
            records.append(
                Record(
                    index=index,
                    target=target,
                    block=index // 5,
                    intended_s=index,
                    sent_s=index + 0.001,
                    first_s=index + took / 5,
                    ended_s=index + took,
                    chunks=((index + took / 5, 1.0), (index + took, 3.0)),
                    output_tokens=4.0,
                    model=hostile,
                    error=hostile if index == 3 else "",
                    detail=hostile,
                )
            )
    comparison = compare(records, baseline="a", candidate="b", metrics=["ttft", "e2e"], rules=Rules())
    slo = Slo(e2e_ms=1000)
    summary = summarise(records, slo=slo)
    runs = (Run("a and b", "constant, 1/s", records, summary, slo=slo),)
    return Report(hostile, runs, validity, comparison=comparison)


def test_json_uses_opentelemetrys_names_and_leaves_unresolved_tails_out() -> None:
    found = json.loads(report_files(run())["report.json"])
    (own,) = found["runs"]
    by_name = {each["name"]: each for each in own["latencies"]}
    duration = by_name["gen_ai.client.operation.duration"]
    assert (duration["clock"], duration["unit"], duration["count"]) == ("service", "s", 78)
    assert duration["percentiles"]["p50"]["low"] < duration["percentiles"]["p50"]["value"]
    assert duration["percentiles"]["p99"] == {"value": None, "low": None, "high": None, "n": 78}
    assert {"gen_ai.client.operation.time_to_first_chunk", "espalier.benchmark.e2e.response"} <= set(by_name)
    assert own["requests"] == {"sent": 80, "succeeded": 78, "error.type": {"tiny": 2}}
    assert found["comparison"]["verdict"] == "Inconclusive"
    assert found["validity"] == {"verdict": "Valid", "reasons": []}


def test_csv_has_a_row_per_request_and_no_formulas() -> None:
    rows = list(csv.DictReader(io.StringIO(report_files(run(hostile=HOSTILE))["requests.csv"].decode())))
    assert len(rows) == 80
    assert {row["model"] for row in rows} == {"'" + HOSTILE}
    assert float(rows[0]["client_lag_s"]) == 0.001


@pytest.mark.parametrize("hostile", [HOSTILE, "'\"><img src=x onerror=y>", "]]></svg>"])
def test_the_page_escapes_whatever_a_server_says_and_runs_nothing(hostile: str) -> None:
    page = report_files(run(hostile=hostile))["report.html"].decode()
    assert hostile not in page
    assert "<script" not in page
    assert "<img" not in page
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_shows_verdicts_bounds_and_pictures() -> None:
    reason = Reason("ClientOverloaded", "generator 0 sent 90 ms late")
    page = report_files(run(validity=Validity((reason,))))["report.html"].decode()
    assert "ClientOverloaded: generator 0 sent 90 ms late" in page
    assert "unresolved, n=78 (≥ 368 needed)" in page
    assert page.count("<svg") == 3
    assert page.count("<circle") == 78
    body = page[page.index("<svg") : page.rindex("</svg>") + 6]
    for svg in body.split("</svg>")[:-1]:
        ElementTree.fromstring(svg[svg.index("<svg") :] + "</svg>")


def test_a_thinned_picture_keeps_its_outlier() -> None:
    plot = over_time("t", [(i / 100, 5.0 if i == 3333 else 0.01) for i in range(10_000)])
    assert plot is not None
    assert len(plot.dots) <= 600
    assert sum(y < 20 for _, y in plot.dots) == 1


def test_a_run_without_an_answer_still_has_a_page() -> None:
    records = [Record(index=0, target="t", intended_s=0, sent_s=0, ended_s=1, error="connect")]
    files = report_files(
        Report("r", (Run("t", "l", records, summarise(records)),), Validity((Reason("NothingMeasured", "no"),)))
    )
    assert "<svg" not in files["report.html"].decode()
    assert json.loads(files["report.json"])["runs"][0]["goodput"] is None
    assert cumulative("x", [("nothing", [])]) is None


@pytest.mark.parametrize("top", [1.0, 2.0, 5.0, 10.0, 0.2, 5000.0])
def test_axes_have_round_ticks_up_to_their_end(top: float) -> None:
    found = ticks(top)
    assert (found[0], found[-1]) == (0.0, top)
    assert 5 <= len(found) <= 11
