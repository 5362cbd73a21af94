"""Which BLAS, decided before MLX is imported."""

import pytest

from espalier_mlx.process import blas_in_use, preloading

LIBRARY = "/usr/lib/openblas/libopenblas.so.0"


def test_linux_starts_again_with_openblas_on_one_thread():
    environ = preloading({"A": "b"}, platform="linux", library=LIBRARY)
    assert environ == {"A": "b", "LD_PRELOAD": LIBRARY, "OPENBLAS_NUM_THREADS": "1"}


def test_what_was_set_stays():
    environ = preloading({"LD_PRELOAD": "x.so", "OPENBLAS_NUM_THREADS": "4"}, platform="linux", library=LIBRARY)
    assert environ == {"LD_PRELOAD": f"{LIBRARY} x.so", "OPENBLAS_NUM_THREADS": "4"}


@pytest.mark.parametrize(
    ("environ", "platform", "library"),
    [
        pytest.param({"LD_PRELOAD": LIBRARY}, "linux", LIBRARY, id="once only"),
        pytest.param({}, "linux", None, id="not installed"),
        pytest.param({}, "darwin", LIBRARY, id="macOS has Accelerate"),
    ],
)
def test_else_it_goes_on_as_it_is(environ, platform, library):
    assert preloading(environ, platform=platform, library=library) is None


@pytest.mark.parametrize(
    ("platform", "maps", "expected"),
    [
        ("linux", "7f00 /usr/lib/libopenblasp-r0.3.so", "openblas"),
        ("linux", "7f00 libblas.so.3", "reference"),
        ("darwin", "", "accelerate"),
    ],
)
def test_what_is_loaded_is_what_is_said(platform, maps, expected):
    assert blas_in_use(platform=platform, maps=maps) == expected
