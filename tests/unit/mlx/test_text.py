"""Stop strings, cut across tokens."""

import pytest

from espalier_mlx.text import StopScanner


def run(pieces, stops):
    scanner = StopScanner(stops)
    out = [scanner.push(piece) for piece in pieces]
    return [*out, scanner.flush()], scanner.is_stopped


@pytest.mark.parametrize(
    ("pieces", "stops", "expected", "is_stopped"),
    [
        pytest.param(["ab", "c"], (), ["ab", "c", ""], False, id="no stops: straight through"),
        pytest.param(["a\n", "\nb"], ("\n\n",), ["a", "", ""], True, id="across two tokens"),
        pytest.param(["a\n", "b"], ("\n\n",), ["a", "\nb", ""], False, id="a false alarm is sent on"),
        pytest.param(["x END y"], ("END",), ["x ", ""], True, id="nothing after it"),
        pytest.param(["one two"], ("two", "one t"), ["", ""], True, id="the earliest wins"),
        pytest.param(["abc EN"], ("END",), ["abc ", "EN"], False, id="what was held back comes at the end"),
    ],
)
def test_stop_scanner(pieces, stops, expected, is_stopped):
    assert run(pieces, stops) == (expected, is_stopped)
