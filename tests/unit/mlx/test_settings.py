"""Settings of the model server."""

import pytest

from espalier_kit.errors import Misconfigured
from espalier_kit.settings import load
from espalier_mlx.settings import MlxSettings, names_of

MODELS = '[{"name": "a/b", "source": "random://tiny"}]'


def test_sizes_are_quantities_and_models_are_json():
    settings = load(MlxSettings, "mlx", {"ESPALIER_MLX_MODELS": MODELS, "ESPALIER_MLX_PROMPT_CACHE_BYTES": "512Mi"})
    assert settings.prompt_cache_bytes == 512 * 2**20
    assert names_of(settings) == {"a/b": "random://tiny"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"MODELS": "[]"}, "at least one model"),
        ({"MODELS": "nonsense"}, "MODELS"),
        ({"MODELS": f"[{MODELS[1:-1]}, {MODELS[1:-1]}]"}, "only once"),
        ({"PROMPT_CACHE_BYTES": "1x"}, "quantity"),
        ({"PORTT": "1"}, "PORTT"),
    ],
    ids=["none", "no json", "twice", "size", "unknown"],
)
def test_wrong_settings_are_named(changes, says):
    environ = {"ESPALIER_MLX_MODELS": MODELS, **{f"ESPALIER_MLX_{key}": value for key, value in changes.items()}}
    with pytest.raises(Misconfigured, match=says):
        load(MlxSettings, "mlx", environ)
