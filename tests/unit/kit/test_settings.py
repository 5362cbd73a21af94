"""Settings come from one prefix, and what is wrong is named."""

from __future__ import annotations

import pytest

from espalier_kit.errors import Misconfigured
from espalier_kit.settings import Settings, load


class Sample(Settings):
    """Two settings, one without a default."""

    host: str
    port: int = 80


def test_values_come_from_the_programs_own_prefix() -> None:
    environ = {"ESPALIER_SAMPLE_HOST": "h", "ESPALIER_SAMPLE_PORT": "81", "ESPALIER_OTHER_PORT": "1", "PATH": "/bin"}
    assert load(Sample, "sample", environ) == Sample(host="h", port=81)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        pytest.param({}, "ESPALIER_SAMPLE_HOST: Field required", id="missing"),
        pytest.param({"ESPALIER_SAMPLE_HOST": "h", "ESPALIER_SAMPLE_PORT": "x"}, "ESPALIER_SAMPLE_PORT", id="wrong"),
        pytest.param({"ESPALIER_SAMPLE_HOST": "h", "ESPALIER_SAMPLE_PROT": "1"}, "ESPALIER_SAMPLE_PROT", id="unknown"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        load(Sample, "sample", environ)
