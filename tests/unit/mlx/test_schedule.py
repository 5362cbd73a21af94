"""Who enters the batch next."""

import pytest

from espalier_mlx.schedule import Candidate, choose

A, B, C = Candidate("a"), Candidate("b"), Candidate("c")
P1, P2, Q1 = Candidate("p1", "p"), Candidate("p2", "p"), Candidate("q1", "q")


@pytest.mark.parametrize(
    ("waiting", "running", "cached", "computing", "expected"),
    [
        pytest.param([A, B, C], 0, set(), set(), ("a", "b"), id="in order, as many as fit"),
        pytest.param([A, B], 2, set(), set(), (), id="nobody when full"),
        pytest.param([P1, P2, A], 0, set(), set(), ("p1", "a"), id="the second with one prefix waits for the first"),
        pytest.param([P1, P2], 0, {"p"}, set(), ("p1", "p2"), id="a cached prefix holds nobody up"),
        pytest.param([P2, Q1], 1, set(), {"p"}, ("q1",), id="another prefix overtakes one being computed"),
        pytest.param([], 0, set(), set(), (), id="nobody waits"),
    ],
)
def test_choice(waiting, running, cached, computing, expected):
    assert choose(waiting, running=running, max_concurrency=2, cached=cached, computing=computing) == expected
