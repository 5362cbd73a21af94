"""The bounded queue and its 429."""

import pytest

from espalier_mlx.admission import Gate, Limits, retry_after_s
from espalier_mlx.errors import ApiError


def test_refuses_the_one_too_many_and_takes_it_after_somebody_left():
    gate = Gate(Limits(max_concurrency=1, queue_limit=1))
    gate.enter()
    gate.enter()
    with pytest.raises(ApiError) as refused:
        gate.enter()
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (429, "rate_limit_exceeded", 1)
    gate.leave(3.0)
    gate.enter()
    assert gate.inside == 2


@pytest.mark.parametrize(
    ("inside", "mean_s", "expected"),
    [
        pytest.param(4, 0.0, 1, id="no experience yet"),
        pytest.param(4, 10.0, 3, id="one place of four frees every 2.5 s"),
        pytest.param(8, 10.0, 13, id="four wait before"),
        pytest.param(8, 1000.0, 60, id="never longer than a minute"),
    ],
)
def test_retry_after_grows_with_the_queue(inside, mean_s, expected):
    assert retry_after_s(inside, Limits(max_concurrency=4, queue_limit=4), mean_s) == expected
