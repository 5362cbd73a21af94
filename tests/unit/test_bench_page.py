"""The page of results: what a quick run is called, pictures that are linked, ratios that leave nobody out."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from bench.curve import best, curve
from bench.peers.comparison import best as best_peer
from bench.peers.comparison import ratios
from bench.pictures import svg
from bench.runner import Figure, Result, from_json, page, to_json

RATES = {
    "espalier": 8000.0, "espalier, protocol only": 20000.0, "celery": 1000.0, "dramatiq": 4000.0, "arq": 1600.0,
    "taskiq": 2000.0, "jetstream": 5000.0,
}  # fmt: skip
RESULT = Result("queue", "a machine", 1, 0, 1, {"rate": Figure(5.0, 4.0, 6.0, "tasks/s")})


def test_a_quick_run_is_called_one() -> None:
    quick = from_json(to_json(replace(RESULT, is_quick=True)))
    assert "**Quick run**" in page([quick], {})
    assert "Quick run" not in page([RESULT], {})


def test_a_curve_is_drawn_and_linked_and_its_highest_point_is_found() -> None:
    picture = curve(lambda sessions, window: 100.0 * min(sessions, 8) * min(window, 64))
    assert best(picture) == (8, 64)
    result = from_json(to_json(replace(RESULT, pictures={"curve": picture})))
    assert "(performance/queue-curve.svg)" in page([result], {})
    drawn = ET.fromstring(svg(result.pictures["curve"]))
    tags = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert (tags.count("polyline"), tags.count("circle")) == (5, 20)


def test_a_peer_without_a_worker_stands_against_both_of_ours() -> None:
    found = ratios(RATES)
    assert (found["espalier / dramatiq"], found["espalier / jetstream"]) == (2.0, 1.6)
    assert found["espalier, protocol only / jetstream"] == 4.0
    assert len(found) == 6
    said = best_peer(RATES)
    assert said == (
        "The best peer with a worker of its own: dramatiq (4,000 tasks/s), without one: jetstream (5,000 tasks/s)."
    )

